// A destination that acknowledges what it gets: go run . KEY.pem [ADDRESS].
package main

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
)

const keyID = "2026-11"

// readKey reads what `openssl genpkey -algorithm ed25519` writes.
func readKey(path string) ed25519.PrivateKey {
	text, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		log.Fatalf("%s holds no PEM", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		log.Fatal(err)
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		log.Fatalf("%s holds no Ed25519 key", path)
	}
	return private
}

// take is where your own code goes: check webhook-signature first, then store the event, then answer.
func take(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, "the body cannot be read", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]int{"took": len(body)})
}

// directory is where a sender finds the key if its manifest says `wellKnown: {}`.
func directory(public ed25519.PublicKey) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		key := map[string]string{
			"kty": "OKP", "crv": "Ed25519", "kid": keyID, "use": "sig", "x": base64.RawURLEncoding.EncodeToString(public),
		}
		w.Header().Set("Content-Type", "application/http-message-signatures-directory+json")
		json.NewEncoder(w).Encode(map[string]any{"keys": []any{key}})
	}
}

func main() {
	if len(os.Args) < 2 {
		log.Fatal("usage: acknowledge KEY.pem [ADDRESS]")
	}
	key, address := readKey(os.Args[1]), "127.0.0.1:0"
	if len(os.Args) > 2 {
		address = os.Args[2]
	}
	mux := http.NewServeMux()
	mux.Handle("/hooks", Acknowledge(key, keyID, http.HandlerFunc(take)))
	mux.Handle("/.well-known/http-message-signatures-directory", directory(key.Public().(ed25519.PublicKey)))
	listener, err := net.Listen("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on http://%s/hooks\n", listener.Addr())
	log.Fatal(http.Serve(listener, mux))
}
