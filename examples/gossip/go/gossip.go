// Holds a kapsel log to its word: what a destination does with the header kapsel-checkpoint.
//
// check is all of it: it keeps the last checkpoint, has the log prove that each other one belongs to the same history,
// and returns a fork if it cannot be so. open and consistent are what docs/proof-format.md says, with nothing but the
// standard library. What is below is a destination to try it with:
//
//	go run gossip.go VKEY CONSOLE_URL FILE [PORT]
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// fork is two signed heads that the log has not shown to be of one history: keep both.
type fork struct{ notes string }

func (f *fork) Error() string { return f.notes }

type head struct {
	size uint64
	root []byte
}

// open returns what a note says; an error unless the key has signed it for its own log.
func open(note, vkey string) (head, error) {
	parts := strings.SplitN(vkey, "+", 3)
	end := strings.LastIndex(note, "\n\n")
	if len(parts) != 3 || end < 0 {
		return head{}, errors.New("it is no note, or the key is no vkey")
	}
	text, signed := note[:end+1], false
	key, _ := base64.StdEncoding.DecodeString(parts[2])
	for _, line := range strings.Split(note[end+2:], "\n") {
		ours := "\u2014 " + parts[0] + " "
		raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(line, ours))
		isOurs := strings.HasPrefix(line, ours) && err == nil && len(raw) == 68 && len(key) == 33
		if isOurs && hex.EncodeToString(raw[:4]) == parts[1] {
			signed = signed || ed25519.Verify(key[1:], []byte(text), raw[4:])
		}
	}
	lines := strings.Split(text, "\n")
	if !signed || len(lines) < 4 || lines[0] != parts[0] {
		return head{}, errors.New("the checkpoint is not signed by the log")
	}
	size, err := strconv.ParseUint(lines[1], 10, 53)
	if err != nil {
		return head{}, err
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	return head{size, root}, err
}

func hash(left, right []byte) []byte {
	sum := sha256.Sum256(append(append([]byte{1}, left...), right...))
	return sum[:]
}

// consistent says whether the tree of m leaves is the beginning of the one of n.
func consistent(m, n uint64, proof [][]byte, old, fresh []byte) bool {
	if m == 0 || m == n {
		return len(proof) == 0 && (m == 0 || bytes.Equal(old, fresh))
	}
	if len(proof) == 0 {
		return false
	}
	if m&(m-1) == 0 {
		proof = append([][]byte{old}, proof...)
	}
	f, s := m-1, n-1
	for f&1 == 1 {
		f, s = f>>1, s>>1
	}
	a, b := proof[0], proof[0]
	for _, c := range proof[1:] {
		if s == 0 || len(c) != 32 {
			return false
		}
		if f&1 == 1 || f == s {
			a, b = hash(c, a), hash(c, b)
			for f != 0 && f&1 == 0 {
				f, s = f>>1, s>>1
			}
		} else {
			b = hash(b, c)
		}
		f, s = f>>1, s>>1
	}
	return s == 0 && bytes.Equal(a, old) && bytes.Equal(b, fresh)
}

// check compares the checkpoint of a delivery with the last one that was kept, and keeps the larger.
func check(header, vkey, console, kept string) error {
	note, err := base64.StdEncoding.DecodeString(header)
	if err != nil {
		return err
	}
	fresh, err := open(string(note), vkey)
	if err != nil {
		return err
	}
	if before, missing := os.ReadFile(kept); missing == nil {
		old, err := open(string(before), vkey)
		if err != nil {
			return err
		}
		first, second := old, fresh
		if first.size > second.size {
			first, second = fresh, old
		}
		var proof [][]byte
		if 0 < first.size && first.size < second.size {
			if proof, err = fetch(console, vkey, first.size, second.size); err != nil {
				return err
			}
		}
		if !consistent(first.size, second.size, proof, first.root, second.root) {
			return &fork{string(before) + "\n" + string(note)}
		}
		if fresh.size <= old.size {
			return nil
		}
	}
	if err := os.WriteFile(kept+".new", note, 0o600); err != nil {
		return err
	}
	return os.Rename(kept+".new", kept) // a crash leaves the old one or the new one
}

// fetch asks the log for the proof that one size is the beginning of another.
func fetch(console, vkey string, old, fresh uint64) ([][]byte, error) {
	origin, _, _ := strings.Cut(vkey, "+")
	client := http.Client{Timeout: 10 * time.Second}
	answer, err := client.Get(fmt.Sprintf("%s/api/v1/attestation/consistency-proof?old_size=%d&new_size=%d&origin=%s",
		console, old, fresh, url.QueryEscape(origin)))
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the log has no proof: %s", answer.Status)
	}
	var content struct{ Proof []string }
	if err := json.NewDecoder(io.LimitReader(answer.Body, 1<<20)).Decode(&content); err != nil {
		return nil, err
	}
	var proof [][]byte
	for _, text := range content.Proof {
		node, err := hex.DecodeString(text)
		if err != nil || len(node) != 32 {
			return nil, errors.New("the log's proof is no proof")
		}
		proof = append(proof, node)
	}
	return proof, nil
}

func main() {
	vkey, console, kept, port := os.Args[1], os.Args[2], os.Args[3], "0"
	if len(os.Args) > 4 {
		port = os.Args[4]
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		panic(err)
	}
	fmt.Println("listening on", listener.Addr().(*net.TCPAddr).Port)
	var one sync.Mutex // there is one file
	panic(http.Serve(listener, http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		io.Copy(io.Discard, request.Body)
		if header := request.Header.Get("Kapsel-Checkpoint"); header != "" { // absent before the log has its first head
			one.Lock()
			defer one.Unlock()
			var found *fork
			if err := check(header, vkey, console, kept); errors.As(err, &found) {
				notes, _ := json.Marshal(found.notes)
				fmt.Println("FORK", string(notes))
			} else if err != nil {
				fmt.Println("NOT PROVEN", err) // the console is away, or it has no proof: ask again next time
			} else {
				note, _ := base64.StdEncoding.DecodeString(header)
				seen, _ := open(string(note), vkey)
				fmt.Println("ok", seen.size)
			}
		}
		response.WriteHeader(http.StatusNoContent)
	})))
}
