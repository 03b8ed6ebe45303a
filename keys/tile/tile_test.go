// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package tile

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/ctonly"
	"github.com/transparency-dev/tessera/fsck"
	"golang.org/x/mod/sumdb/note"

	"provost/attest"
)

const testOrigin = "log.example.com"

// testKey makes a key for checkpoints; both values are for note.
func testKey(t testing.TB) (private, public string) {
	t.Helper()
	private, public, err := note.GenerateKey(rand.Reader, testOrigin)
	if err != nil {
		t.Fatal(err)
	}
	return private, public
}

// testConfig is of a log signed with an Ed25519 key.
func testConfig(t testing.TB, dir string) Config {
	t.Helper()
	return keyConfig(t, dir, testKey)
}

func keyConfig(t testing.TB, dir string, key func(testing.TB) (private, public string)) Config {
	t.Helper()
	private, public := key(t)
	c, err := configOf(dir, private, public)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func configOf(dir, private, public string) (Config, error) {
	s, err := note.NewSigner(private)
	if err != nil {
		return Config{}, err
	}
	v, err := note.NewVerifier(public)
	if err != nil {
		return Config{}, err
	}
	return Config{
		Dir: dir, Origin: testOrigin, Verifier: v,
		Sign: func(ctx context.Context, body []byte) ([]byte, error) {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			return note.Sign(&note.Note{Text: string(body)}, s)
		},
	}, nil
}

// openTest creates and opens a log, which is closed with the test.
func openTest(t testing.TB, c Config) *Log {
	t.Helper()
	if err := Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	l, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func data(s string) Entry { return func(uint64) []byte { return []byte(s) } }

// checkAppended verifies an answer as a client would.
func checkAppended(t testing.TB, c Config, a Appended, entry string) {
	t.Helper()
	cp, err := c.open(a.Checkpoint)
	if err != nil {
		t.Errorf("checkpoint: %v", err)
		return
	}
	if cp.size != a.Size || !bytes.Equal(cp.root, a.Root) {
		t.Errorf("checkpoint of size %d, root %x: want %d, %x", cp.size, cp.root, a.Size, a.Root)
	}
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, a.Index, a.Size, rfc6962.DefaultHasher.HashLeaf([]byte(entry)), a.Proof, a.Root); err != nil {
		t.Errorf("entry %d: %v", a.Index, err)
	}
}

func mustAppend(t testing.TB, l *Log, entry string) Appended {
	t.Helper()
	a, err := l.Append(t.Context(), data(entry))
	if err != nil {
		t.Fatal(err)
	}
	checkAppended(t, l.config, a, entry)
	return a
}

// appendMany appends n entries, many at a time.
func appendMany(t testing.TB, l *Log, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			s := fmt.Sprintf("%s %d", t.Name(), i)
			a, err := l.Append(t.Context(), data(s))
			if err != nil {
				t.Error(err)
				return
			}
			checkAppended(t, l.config, a, s)
		})
	}
	wg.Wait()
}

// fsckLog has tessera's own checker read the log in a directory.
func fsckLog(t testing.TB, c Config, dir string) {
	t.Helper()
	fsckOf(t, c, client.FileFetcher{Root: dir})
}

func fsckOf(t testing.TB, c Config, f fsck.Fetcher) {
	t.Helper()
	hasher := func(bundle []byte) (hashes [][]byte, err error) {
		n, err := c.Layout.count(bundle)
		if err != nil {
			return nil, err
		}
		_, hashes, _, err = c.Layout.split(bundle, n)
		return hashes, err
	}
	if err := fsck.New(c.Origin, c.Verifier, f, hasher, fsck.Opts{N: 2}).Check(context.Background()); err != nil {
		t.Errorf("fsck: %v", err)
	}
}

func TestAppend(t *testing.T) {
	c := testConfig(t, filepath.Join(t.TempDir(), "log"))
	l := openTest(t, c)
	if err := l.Check(t.Context()); err != nil {
		t.Errorf("empty log: %v", err)
	}
	var last Appended
	for i := range 600 { // over two borders of tiles, one at a time
		last = mustAppend(t, l, fmt.Sprint("lone ", i))
		if last.Index != uint64(i) || last.Size != last.Index+1 {
			t.Fatalf("index %d, size %d: want %d, %d", last.Index, last.Size, i, i+1)
		}
	}
	appendMany(t, l, 1000)
	fsckLog(t, c, c.Dir)
	if err := l.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if err := l.ConsistentWith(t.Context(), last.Size, last.Root); err != nil {
		t.Error(err)
	}
	if got, err := l.Entry(t.Context(), 599); err != nil || string(got) != "lone 599" {
		t.Errorf("entry 599: %q, %v", got, err)
	}
	if _, err := l.Entry(t.Context(), 1600); !errors.Is(err, attest.ErrNotFound) {
		t.Errorf("entry 1600: %v", err)
	}
	a, err := l.Prove(t.Context(), 3)
	if err != nil {
		t.Fatal(err)
	}
	checkAppended(t, c, a, "lone 3")
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := l.Append(t.Context(), data("late")); !errors.Is(err, attest.ErrUnavailable) {
		t.Errorf("append after close: %v", err)
	}
	l = openTest(t, c)
	if a := mustAppend(t, l, "after"); a.Index != 1600 {
		t.Errorf("index %d after reopening: want 1600", a.Index)
	}
	fsckLog(t, c, c.Dir)
}

// One batch that fills several tiles, at every position relative to them.
func TestEdge(t *testing.T) {
	for _, sizes := range [][]int{{1, 1}, {255, 1, 1}, {254, 3}, {256, 256}, {1, 254, 300, 700}, {65535, 1, 2}, {65000, 1500}} {
		l := newEdge(Entries)
		files := map[place][]byte{}
		for _, n := range sizes {
			var framed [][]byte
			for i := range n {
				framed = append(framed, Entries.frame([]byte(fmt.Sprint(l.size, i))))
			}
			first := l.size
			g, err := l.append(framed)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range g.files {
				files[f.place] = f.data
			}
			for _, i := range []uint64{first, first + uint64(n)/2, g.size - 1} {
				p, err := g.inclusion(i)
				if err != nil {
					t.Fatal(err)
				}
				_, _, leaf, _, _ := Entries.next(framed[i-first])
				if err := proof.VerifyInclusion(rfc6962.DefaultHasher, i, g.size, rfc6962.DefaultHasher.HashLeaf(leaf), p, g.root); err != nil {
					t.Errorf("sizes %v: entry %d of %d: %v", sizes, i, g.size, err)
				}
			}
			l = g.edge
			read := func(p place) ([]byte, error) {
				if b, ok := files[p]; ok {
					return b, nil
				}
				return nil, fmt.Errorf("%s was not written", Entries.path(p))
			}
			loaded, err := loadEdge(Entries, l.size, l.root, read)
			if err != nil {
				t.Fatalf("sizes %v: at %d: %v", sizes, l.size, err)
			}
			if !bytes.Equal(loaded.bundle, l.bundle) || !slices.EqualFunc(loaded.peaks, l.peaks, bytes.Equal) {
				t.Errorf("sizes %v: at %d: another edge was read", sizes, l.size)
			}
		}
	}
}

func TestCertificates(t *testing.T) {
	c := testConfig(t, t.TempDir())
	c.Layout = Certificates
	l := openTest(t, c)
	var entries []*ctonly.Entry
	for i := range 300 {
		e := &ctonly.Entry{Timestamp: uint64(i), Certificate: fmt.Append(nil, "certificate ", i), FingerprintsChain: [][32]byte{{1}}}
		if i%2 == 1 {
			e.IsPrecert, e.Precertificate, e.IssuerKeyHash = true, []byte("precertificate"), make([]byte, 32)
		}
		a, err := l.Append(t.Context(), e.LeafData)
		if err != nil {
			t.Fatal(err)
		}
		if err := proof.VerifyInclusion(rfc6962.DefaultHasher, a.Index, a.Size, e.MerkleLeafHash(a.Index), a.Proof, a.Root); err != nil {
			t.Fatal(err)
		}
		entries = append(entries, e)
	}
	for _, i := range []uint64{0, 1, 255, 299} {
		if got, err := l.Entry(t.Context(), i); err != nil || !bytes.Equal(got, entries[i].LeafData(i)) {
			t.Errorf("entry %d: %x, %v", i, got, err)
		}
	}
	if _, err := l.Append(t.Context(), data("no certificate")); !errors.Is(err, attest.ErrInvalid) {
		t.Errorf("entry of another layout: %v", err)
	}
	if err := l.Check(t.Context()); err != nil {
		t.Error(err)
	}
	for _, path := range []string{"tile/data/000", "tile/0/000", "tile/data/001.p/44", "tile/1/000.p/1"} {
		if _, err := os.Stat(filepath.Join(c.Dir, path)); err != nil {
			t.Error(err)
		}
	}
}

func TestRefusedEntryFailsAlone(t *testing.T) {
	c := testConfig(t, t.TempDir())
	hold := make(chan struct{})
	sign := c.Sign
	c.Sign = func(ctx context.Context, body []byte) ([]byte, error) {
		if !bytes.Contains(body, []byte("\n0\n")) {
			<-hold
		}
		return sign(ctx, body)
	}
	l := openTest(t, c)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			s := "good"
			if i == 10 {
				s = strings.Repeat("x", maxEntry+1)
			}
			a, err := l.Append(t.Context(), data(s))
			if i == 10 {
				if limit := new(attest.LimitError); !errors.As(err, &limit) {
					t.Errorf("long entry: %v", err)
				}
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			checkAppended(t, c, a, s)
		})
	}
	close(hold)
	wg.Wait()
	if _, size, _, err := l.Checkpoint(); err != nil || size != 19 {
		t.Errorf("size %d, %v: want 19", size, err)
	}
	if err := l.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

// Standard clients read the log over HTTP while it grows.
func TestHandler(t *testing.T) {
	c := testConfig(t, t.TempDir())
	c.flushAt = 1
	l := openTest(t, c)
	var middle Appended
	for i := range 300 {
		a := mustAppend(t, l, fmt.Sprint("entry ", i))
		if i == 41 {
			middle = a
		}
	}
	l.flushes.Wait()
	if err := l.flush(); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(l.Handler())
	defer server.Close()
	root, _ := url.Parse(server.URL + "/")
	f, err := client.NewHTTPFetcher(root, server.Client())
	if err != nil {
		t.Fatal(err)
	}
	fsckOf(t, c, f)
	cp, _, _, err := client.FetchCheckpoint(t.Context(), f.ReadCheckpoint, c.Verifier, c.Origin)
	if err != nil {
		t.Fatal(err)
	}
	b, err := client.NewProofBuilder(t.Context(), cp.Size, f.ReadTile)
	if err != nil {
		t.Fatal(err)
	}
	p, err := b.InclusionProof(t.Context(), 7)
	if err == nil {
		err = proof.VerifyInclusion(rfc6962.DefaultHasher, 7, cp.Size, rfc6962.DefaultHasher.HashLeaf([]byte("entry 7")), p, cp.Hash)
	}
	if err != nil {
		t.Error(err)
	}
	if p, err = b.ConsistencyProof(t.Context(), middle.Size, cp.Size); err == nil {
		err = proof.VerifyConsistency(rfc6962.DefaultHasher, middle.Size, cp.Size, p, middle.Root, cp.Hash)
	}
	if err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(c.Dir, "tile/0/000.p")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("partial tiles of a full one are still there: %v", err)
	}

	const octets, immutable = "application/octet-stream", "public, max-age=31536000, immutable"
	for _, tc := range []struct {
		method, path string
		status       int
		contentType  string
		cache        string
	}{
		{"GET", "/checkpoint", 200, "text/plain; charset=utf-8", "no-cache"},
		{"HEAD", "/checkpoint", 200, "text/plain; charset=utf-8", "no-cache"},
		{"GET", "/tile/0/000", 200, octets, immutable},
		{"GET", "/tile/entries/000", 200, octets, immutable},
		{"GET", "/tile/0/001.p/44", 200, octets, immutable},
		{"GET", "/tile/1/000.p/1", 200, octets, immutable},
		{"GET", "/tile/0/000.p/42", 200, octets, immutable}, // removed, cut out of the full one
		{"GET", "/tile/entries/000.p/42", 200, octets, immutable},
		{"GET", "/tile/0/001", 404, "", "no-store"},
		{"GET", "/tile/0/001.p/45", 404, "", "no-store"},
		{"GET", "/tile/data/000", 404, "", "no-store"},
		{"GET", "/tile/0/000.p/0", 404, "", "no-store"},
		{"GET", "/tile/0/000.p/256", 404, "", "no-store"},
		{"GET", "/tile/0/x000/000", 404, "", "no-store"},
		{"GET", "/tile/00/000", 404, "", "no-store"},
		{"GET", "/tile/64/000", 404, "", "no-store"},
		{"GET", "/tile/", 404, "", "no-store"},
		{"GET", "/tile/0/", 404, "", "no-store"},
		{"GET", "/", 404, "", "no-store"},
		{"GET", "/.journal", 404, "", "no-store"},
		{"GET", "/.new", 404, "", "no-store"},
		{"GET", "/tile/0/../../.journal", 404, "", "no-store"},
		{"GET", "/tile/0/..%2f..%2f.journal", 404, "", "no-store"},
		{"GET", "//checkpoint", 404, "", "no-store"},
		{"POST", "/checkpoint", 405, "", ""},
		{"DELETE", "/tile/0/000", 405, "", ""},
	} {
		w := httptest.NewRecorder()
		l.Handler().ServeHTTP(w, &http.Request{Method: tc.method, URL: mustURL(t, tc.path), Header: http.Header{}})
		h := w.Result().Header
		if w.Code != tc.status || tc.contentType != "" && h.Get("Content-Type") != tc.contentType || h.Get("Cache-Control") != tc.cache {
			t.Errorf("%s %s: %d, %q, %q: want %d, %q, %q", tc.method, tc.path, w.Code, h.Get("Content-Type"), h.Get("Cache-Control"), tc.status, tc.contentType, tc.cache)
		}
		if strings.Contains(w.Body.String(), "journal") {
			t.Errorf("%s %s leaks the journal", tc.method, tc.path)
		}
		if tc.method == "GET" && strings.HasSuffix(tc.path, "000.p/42") {
			want := 42 * hashSize
			if strings.Contains(tc.path, "entries") {
				want = 10*(2+len("entry 0")) + 32*(2+len("entry 10"))
			}
			if w.Body.Len() != want {
				t.Errorf("%s has %d bytes: want %d", tc.path, w.Body.Len(), want)
			}
		}
	}
}

func mustURL(t *testing.T, path string) *url.URL {
	t.Helper()
	u, err := url.Parse("http://log.example.com" + path)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// Nothing of a batch that is not released is served.
func TestHandlerKeepsBackWhatIsNotReleased(t *testing.T) {
	c := testConfig(t, t.TempDir())
	sign, fail := c.Sign, false
	c.Sign = func(ctx context.Context, body []byte) ([]byte, error) {
		if fail {
			return nil, attest.ErrUnavailable
		}
		return sign(ctx, body)
	}
	l := openTest(t, c)
	mustAppend(t, l, "released")
	fail = true
	if _, err := l.Append(t.Context(), data("kept back")); !errors.Is(err, attest.ErrUnavailable) {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(c.Dir, "tile/0/000.p/2")); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	l.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/tile/0/000.p/2", nil))
	if w.Code != 404 {
		t.Errorf("status %d: want 404", w.Code)
	}
}

// Two logs on one directory, as of two processes, take turns.
func TestTwoWriters(t *testing.T) {
	c := testConfig(t, t.TempDir())
	c.flushAt = 20_000 // several times
	a := openTest(t, c)
	b := openTest(t, c)
	for i := range 10 {
		mustAppend(t, a, fmt.Sprint("a ", i))
		if x := mustAppend(t, b, fmt.Sprint("b ", i)); x.Index != uint64(2*i+1) {
			t.Fatalf("index %d: want %d", x.Index, 2*i+1)
		}
	}
	var wg sync.WaitGroup
	for i := range 8 {
		l := a
		if i%2 == 1 {
			l = b
		}
		wg.Go(func() {
			for k := range 100 {
				s := fmt.Sprint(i, k)
				x, err := l.Append(t.Context(), data(s))
				if err != nil {
					t.Error(err)
					return
				}
				checkAppended(t, c, x, s)
			}
		})
	}
	wg.Wait()
	fsckLog(t, c, c.Dir)
	if _, size, _, err := b.Checkpoint(); err != nil || size != 820 {
		t.Errorf("size %d, %v: want 820", size, err)
	}
}

func TestCreate(t *testing.T) {
	c := testConfig(t, filepath.Join(t.TempDir(), "a", "b"))
	for range 2 {
		if err := Create(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	l := openTest(t, c)
	mustAppend(t, l, "entry")
	if err := Create(t.Context(), c); err != nil { // while it is in use
		t.Error(err)
	}
	if _, size, _, err := l.Checkpoint(); err != nil || size != 1 {
		t.Errorf("size %d, %v after creating again: want 1", size, err)
	}
	other := testConfig(t, c.Dir)
	if err := Create(t.Context(), other); !errors.Is(err, ErrDamaged) {
		t.Errorf("create with another key: %v", err)
	}
	if _, err := Open(t.Context(), testConfig(t, t.TempDir())); !errors.Is(err, attest.ErrNotFound) {
		t.Errorf("open what was not created: %v", err)
	}
	if _, err := Open(t.Context(), testConfig(t, filepath.Join(t.TempDir(), "no"))); !errors.Is(err, attest.ErrNotFound) {
		t.Errorf("open what is not there: %v", err)
	}
}

func TestBusy(t *testing.T) {
	c := testConfig(t, t.TempDir())
	c.Waiting = 5
	sign, hold := c.Sign, make(chan struct{})
	signing := make(chan struct{}, 100)
	c.Sign = func(ctx context.Context, body []byte) ([]byte, error) {
		if !bytes.Contains(body, []byte("\n0\n")) {
			signing <- struct{}{}
			<-hold
		}
		return sign(ctx, body)
	}
	l := openTest(t, c)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := l.Append(t.Context(), data("first")); err != nil {
			t.Error(err)
		}
	})
	<-signing
	answers := make(chan error, 20)
	for range 20 {
		wg.Go(func() {
			_, err := l.Append(t.Context(), data("later"))
			answers <- err
		})
	}
	for range 15 { // 5 wait
		if busy := new(attest.BusyError); !errors.As(<-answers, &busy) {
			t.Error("not told to come back")
		}
	}
	close(hold)
	wg.Wait()
	for range 5 {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
}

// A caller that leaves gets its answer at once; the others get theirs.
func TestCancelled(t *testing.T) {
	c := testConfig(t, t.TempDir())
	sign, hold := c.Sign, make(chan struct{})
	c.Sign = func(ctx context.Context, body []byte) ([]byte, error) {
		if bytes.Contains(body, []byte("\n1\n")) {
			<-hold
		}
		return sign(ctx, body)
	}
	l := openTest(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := l.Append(ctx, data("leaves")); !errors.Is(err, attest.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("who left: %v", err)
	}
	close(hold)
	if a := mustAppend(t, l, "stays"); a.Index != 1 {
		t.Errorf("index %d: want 1, behind the entry of who left", a.Index)
	}
	fsckLog(t, c, c.Dir)
}

func TestSigningFails(t *testing.T) {
	c := testConfig(t, t.TempDir())
	c.Timeout = 50 * time.Millisecond
	sign := c.Sign
	c.Sign = func(ctx context.Context, body []byte) ([]byte, error) { return sign(ctx, body) }
	l := openTest(t, c)
	mustAppend(t, l, "before")
	foreign := testConfig(t, "")
	for name, bad := range map[string]struct {
		sign func(ctx context.Context, body []byte) ([]byte, error)
		want error
	}{
		"an error":    {func(context.Context, []byte) ([]byte, error) { return nil, attest.ErrUnavailable }, attest.ErrUnavailable},
		"slow":        {func(ctx context.Context, _ []byte) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() }, context.DeadlineExceeded},
		"deaf":        {func(context.Context, []byte) ([]byte, error) { time.Sleep(200 * time.Millisecond); return nil, nil }, attest.ErrUnavailable},
		"another key": {foreign.Sign, attest.ErrSelfCheck},
		"nothing":     {func(context.Context, []byte) ([]byte, error) { return nil, nil }, attest.ErrSelfCheck},
		"another text": {func(ctx context.Context, _ []byte) ([]byte, error) {
			return sign(ctx, []byte(testOrigin+"\n9\nAAAA\n"))
		}, attest.ErrSelfCheck},
		"without a root": {func(ctx context.Context, _ []byte) ([]byte, error) { return sign(ctx, []byte("x\n")) }, attest.ErrSelfCheck},
	} {
		t.Run(name, func(t *testing.T) {
			l.mu.Lock()
			l.config.Sign = bad.sign
			l.mu.Unlock()
			before, size, _, err := l.Checkpoint()
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if _, err := l.Append(t.Context(), data(name)); !errors.Is(err, bad.want) {
					t.Fatalf("%v: want %v", err, bad.want)
				}
			}
			if after, _, _, err := l.Checkpoint(); err != nil || !bytes.Equal(before, after) {
				t.Errorf("a checkpoint was released: %s, %v", after, err)
			}
			if l.edge.size != size+1 { // the entries of one batch, and no more
				t.Errorf("the tree has %d entries: want %d", l.edge.size, size+1)
			}
			l.mu.Lock()
			l.config.Sign = sign
			l.mu.Unlock()
			if a := mustAppend(t, l, "good again"); a.Index != size+1 {
				t.Errorf("index %d: want %d", a.Index, size+1)
			}
		})
	}
	fsckLog(t, c, c.Dir)
}

func FuzzParsePath(f *testing.F) {
	for _, s := range []string{"checkpoint", "tile/0/000", "tile/entries/x001/234.p/5", "tile/data/.p/1", "tile/0/../x", "tile/1/.p", "tile/0/000.p"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		for _, l := range []Layout{Entries, Certificates} {
			if p, ok := l.parsePath(path); ok && (l.path(p) != path || strings.Contains(path, "..") || !filepath.IsLocal(path)) {
				t.Errorf("%q was accepted", path)
			}
		}
	})
}

func FuzzBundle(f *testing.F) {
	e := ctonly.Entry{Certificate: []byte("c"), IsPrecert: true, IssuerKeyHash: make([]byte, 32), Precertificate: []byte("p")}
	f.Add(e.LeafData(3))
	f.Add([]byte{0, 1, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, l := range []Layout{Entries, Certificates} {
			n, err := l.count(b)
			if err != nil {
				continue
			}
			entries, hashes, size, err := l.split(b, n)
			if err != nil || size != len(b) || len(entries) != n || len(hashes) != n {
				t.Errorf("split %d entries: %d, %d bytes, %v", n, len(entries), size, err)
			}
			var back []byte
			for _, e := range entries {
				back = append(back, l.frame(e)...)
			}
			if !bytes.Equal(back, b) {
				t.Error("frame is not the inverse of next")
			}
		}
	})
}
