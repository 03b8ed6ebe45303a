// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package tile

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	fnote "github.com/transparency-dev/formats/note"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera"
	"golang.org/x/mod/sumdb/note"

	"provost/attest"
)

// A testWitness follows c2sp.org/tlog-witness, for one log.
type testWitness struct {
	t      *testing.T
	log    Config
	signer note.Signer
	vkey   string
	server *httptest.Server

	mu     sync.Mutex
	size   uint64
	root   []byte
	answer func(w http.ResponseWriter, r *http.Request) bool // true: it answered in its place
}

func newTestWitness(t *testing.T, name string, log Config) *testWitness {
	t.Helper()
	skey, vkey := cosignatureKey(t, name)
	s, err := fnote.NewSignerForCosignatureV1(skey)
	if err != nil {
		t.Fatal(err)
	}
	w := &testWitness{t: t, log: log, signer: s, vkey: vkey}
	w.server = httptest.NewServer(w)
	t.Cleanup(w.server.Close)
	return w
}

// cosignatureKey makes an Ed25519 key of signature type 4.
func cosignatureKey(t *testing.T, name string) (skey, vkey string) {
	t.Helper()
	skey, vkey, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		t.Fatal(err)
	}
	// NewSignerForCosignatureV1 takes a plain Ed25519 key; the verifier wants
	// the type and the hash that goes with it.
	fields := strings.SplitN(vkey, "+", 3)
	key, err := base64.StdEncoding.DecodeString(fields[2])
	if err != nil || len(key) != 1+ed25519.PublicKeySize {
		t.Fatal(err)
	}
	s, err := fnote.NewSignerForCosignatureV1(skey)
	if err != nil {
		t.Fatal(err)
	}
	key[0] = 4
	return skey, fmt.Sprintf("%s+%08x+%s", name, s.KeyHash(), base64.StdEncoding.EncodeToString(key))
}

func (w *testWitness) witness(t *testing.T) tessera.Witness {
	t.Helper()
	u, err := url.Parse(w.server.URL)
	if err != nil {
		t.Fatal(err)
	}
	x, err := tessera.NewWitness(w.vkey, u)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func (w *testWitness) set(answer func(http.ResponseWriter, *http.Request) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answer = answer
}

func (w *testWitness) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.answer != nil && w.answer(rw, r) {
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || r.URL.Path != "/add-checkpoint" || r.Method != http.MethodPost {
		http.Error(rw, "no", http.StatusBadRequest)
		return
	}
	head, cpNote, _ := bytes.Cut(body, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	old, err := strconv.ParseUint(strings.TrimPrefix(lines[0], "old "), 10, 64)
	cp, cerr := w.log.open(cpNote)
	if err != nil || cerr != nil {
		http.Error(rw, "unknown log", http.StatusForbidden)
		return
	}
	var p [][]byte
	for _, l := range lines[1:] {
		h, err := base64.StdEncoding.DecodeString(l)
		if err != nil {
			http.Error(rw, "proof", http.StatusBadRequest)
			return
		}
		p = append(p, h)
	}
	if old != w.size || cp.size == w.size && !bytes.Equal(cp.root, w.root) {
		if cp.size == w.size && old == w.size {
			w.t.Errorf("witness: a fork at size %d", cp.size)
		}
		rw.Header().Set("Content-Type", "text/x.tlog.size")
		rw.WriteHeader(http.StatusConflict)
		fmt.Fprintf(rw, "%d\n", w.size)
		return
	}
	if old > 0 {
		if err := proof.VerifyConsistency(rfc6962.DefaultHasher, old, cp.size, p, w.root, cp.root); err != nil {
			http.Error(rw, "inconsistent", http.StatusUnprocessableEntity)
			return
		}
	}
	text, _, _ := bytes.Cut(cpNote, []byte("\n\n"))
	signed, err := note.Sign(&note.Note{Text: string(text) + "\n"}, w.signer)
	if err != nil {
		http.Error(rw, "sign", http.StatusInternalServerError)
		return
	}
	w.size, w.root = cp.size, cp.root
	_, sig, _ := bytes.Cut(signed, []byte("\n\n"))
	_, _ = rw.Write(sig)
}

func TestWitnesses(t *testing.T) {
	c := testConfig(t, t.TempDir())
	one, two, three := newTestWitness(t, "one.example.com", c), newTestWitness(t, "two.example.com", c), newTestWitness(t, "three.example.com", c)
	group := tessera.NewWitnessGroup(2, one.witness(t), two.witness(t), three.witness(t))
	c.Witnesses = &group
	c.Timeout = 500 * time.Millisecond
	l := openTest(t, c)
	cosigned := func(a Appended) {
		t.Helper()
		if !group.Satisfied(a.Checkpoint) {
			t.Errorf("not cosigned by two:\n%s", a.Checkpoint)
		}
	}
	for i := range 3 {
		cosigned(mustAppend(t, l, fmt.Sprint(i)))
	}
	for range 2 {
		appendMany(t, l, 300)
	}
	fail := func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(500); return true }
	one.set(fail)
	cosigned(mustAppend(t, l, "two are enough"))

	before, _, _, _ := l.Checkpoint()
	for name, answer := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"an error": fail,
		"slow": func(_ http.ResponseWriter, r *http.Request) bool {
			_, _ = io.Copy(io.Discard, r.Body) // so that the server notices who leaves
			<-r.Context().Done()
			return true
		},
		"nothing": func(http.ResponseWriter, *http.Request) bool { return true },
		"endless": func(w http.ResponseWriter, _ *http.Request) bool {
			_, _ = w.Write(bytes.Repeat([]byte("x"), 1<<20))
			return true
		},
		"a redirect": func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
			return true
		},
		"a forgery": func(w http.ResponseWriter, _ *http.Request) bool {
			fmt.Fprintf(w, "— two.example.com %s\n", forgedSig(two.signer))
			return true
		},
		"always old": func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", "text/x.tlog.size")
			w.WriteHeader(409)
			fmt.Fprintln(w, 1)
			return true
		},
		"from beyond": func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", "text/x.tlog.size")
			w.WriteHeader(409)
			fmt.Fprintln(w, 1<<40)
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			two.set(answer)
			if _, err := l.Append(t.Context(), data("one is not enough")); !errors.Is(err, attest.ErrUnavailable) {
				t.Errorf("%v", err)
			}
			if after, _, _, err := l.Checkpoint(); err != nil || !bytes.Equal(before, after) {
				t.Errorf("released: %s, %v", after, err)
			}
		})
	}
	one.set(nil)
	two.set(nil)
	cosigned(mustAppend(t, l, "good again"))
	fsckLog(t, c, c.Dir)

	// A log that was put back from a backup gets no cosignature: its witnesses
	// know better. (openTest of a fork; the witnesses call t.Error if they see
	// one at their own size.)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	fork := c
	fork.Dir = t.TempDir()
	fork.Witnesses = nil
	f := openTest(t, fork)
	appendMany(t, f, 700)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	fork.Witnesses = &group
	f, err := Open(t.Context(), fork)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Append(t.Context(), data("fork")); !errors.Is(err, attest.ErrUnavailable) {
		t.Errorf("fork: %v", err)
	}
}

func forgedSig(s note.Signer) string {
	b := binary.BigEndian.AppendUint32(nil, s.KeyHash())
	return base64.StdEncoding.EncodeToString(append(b, make([]byte, 72)...))
}
