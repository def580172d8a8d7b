// Acknowledge wraps a handler so that it signs what it took, and the sender can prove the delivery (RFC 9421).
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	covered = `("@status" "content-digest" "webhook-id";req "content-digest";req)`
	maxBody = 25 << 20
)

func contentDigest(body []byte) string {
	sum := sha256.Sum256(body)
	return "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
}

// held keeps a response back until it is known whole.
type held struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (h *held) WriteHeader(status int)            { h.status = status }
func (h *held) Write(content []byte) (int, error) { return h.body.Write(content) }

// Acknowledge signs a success of the handler, and only if the request carries the Content-Digest of the very body that
// was read: a sender that wants no signature sends none. Let it stand around whatever checks webhook-signature.
func Acknowledge(key ed25519.PrivateKey, keyID string, handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			http.Error(w, "the body cannot be read", http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		response := &held{ResponseWriter: w, status: http.StatusOK}
		handler.ServeHTTP(response, r)
		digest := contentDigest(body)
		wanted := r.Header.Get("Content-Digest") == digest && r.Header.Get("Webhook-Id") != ""
		if wanted && response.status >= 200 && response.status < 300 {
			answer := contentDigest(response.body.Bytes())
			parameters := fmt.Sprintf(`%s;created=%d;keyid="%s";alg="ed25519";tag="kapsel-ack"`, covered, time.Now().Unix(), keyID)
			base := fmt.Sprintf("\"@status\": %d\n\"content-digest\": %s\n\"webhook-id\";req: %s\n\"content-digest\";req: %s\n\"@signature-params\": %s",
				response.status, answer, r.Header.Get("Webhook-Id"), digest, parameters)
			signature := base64.StdEncoding.EncodeToString(ed25519.Sign(key, []byte(base)))
			w.Header().Set("Content-Digest", answer)
			w.Header().Set("Signature-Input", "ack="+parameters)
			w.Header().Set("Signature", "ack=:"+signature+":")
		}
		w.WriteHeader(response.status)
		w.Write(response.body.Bytes())
	})
}
