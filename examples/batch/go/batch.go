// Takes webhooks that come together: a destination that declares `batch`, to start from.
//
// take is all of it, with nothing but the standard library. What is below keeps each webhook as a file, to try it with:
//
//	kapsel secret NAMESPACE/KEY > secret
//	go run batch.go secret FOLDER [PORT]
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

const largest = 32 << 20 // bytes of a request: maxBytes of the destination, or one webhook that is larger by itself

type webhook struct {
	Headers map[string]string `json:"headers"`
	Text    *string           `json:"body"`
	Content []byte            `json:"body_base64"`
}

type failure struct {
	ItemIdentifier string `json:"itemIdentifier"`
}

// isGenuine says whether one of the signatures is good, and its time within five minutes of ours.
func isGenuine(key []byte, headers http.Header, body []byte) bool {
	timestamp := headers.Get("Webhook-Timestamp")
	seconds, err := strconv.ParseUint(timestamp, 10, 32)
	if err != nil || time.Since(time.Unix(int64(seconds), 0)).Abs() > 5*time.Minute {
		return false
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", headers.Get("Webhook-Id"), timestamp, body)
	good := []byte("v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	for _, each := range strings.Split(headers.Get("Webhook-Signature"), " ") { // several while a key is rotated
		if hmac.Equal([]byte(each), good) {
			return true
		}
	}
	return false
}

// take handles each webhook of a request that was not seen before; it returns the status and the answer.
func take(key []byte, headers http.Header, body []byte,
	seen func(id string) (bool, error), handle func(headers map[string]string, body []byte) error) (int, any) {
	if !isGenuine(key, headers, body) {
		return http.StatusUnauthorized, map[string]string{"error": "it is not signed with this key, or not just now"}
	}
	var webhooks []webhook
	isBatch := json.Unmarshal(body, &webhooks) == nil && len(webhooks) > 0
	for i, each := range webhooks {
		isBatch = isBatch && each.Headers["webhook-id"] != "" && (each.Text != nil || each.Content != nil)
		if each.Text != nil {
			webhooks[i].Content = []byte(*each.Text)
		}
	}
	if !isBatch {
		return http.StatusBadRequest, map[string]string{"error": "it is no batch"}
	}
	failures := []failure{}
	for _, each := range webhooks {
		id := each.Headers["webhook-id"]
		known, err := seen(id)
		if err == nil && !known {
			err = handle(each.Headers, each.Content)
		}
		if err != nil { // whatever it is, this one is sent again, and the others are done
			log.Print(id, " failed: ", err)
			failures = append(failures, failure{id})
		}
	}
	return http.StatusOK, map[string]any{"batchItemFailures": failures}
}

// folder is where your own code goes: whatever handle has kept, seen must find afterwards.
type folder string

func (f folder) file(id string) string { return filepath.Join(string(f), filepath.Base(id)) }

func (f folder) seen(id string) (bool, error) {
	_, err := os.Stat(f.file(id))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (f folder) handle(headers map[string]string, body []byte) error {
	file := f.file(headers["webhook-id"])
	if err := os.WriteFile(file+".new", body, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file) // a crash leaves all of it or nothing
}

// readKey reads what `kapsel secret` prints.
func readKey(path string) []byte {
	text, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	encoded, isSecret := strings.CutPrefix(strings.TrimSpace(string(text)), "whsec_")
	key, err := base64.StdEncoding.DecodeString(encoded)
	if !isSecret || err != nil || len(key) == 0 {
		log.Fatalf("%s holds no whsec_ secret", path)
	}
	return key
}

func main() {
	if len(os.Args) < 3 || len(os.Args) > 4 {
		log.Fatal("usage: batch SECRET_FILE FOLDER [PORT]")
	}
	key, kept, port := readKey(os.Args[1]), folder(os.Args[2]), "0"
	if len(os.Args) > 3 {
		port = os.Args[3]
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on http://%s/hooks\n", listener.Addr())
	var one sync.Mutex // nothing is looked for while it is being kept
	log.Fatal(http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, largest))
		if err != nil {
			http.Error(w, "the body cannot be read, or is too large", http.StatusRequestEntityTooLarge)
			return
		}
		one.Lock()
		defer one.Unlock()
		status, answer := take(key, r.Header, body, kept.seen, kept.handle)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(answer)
	})))
}
