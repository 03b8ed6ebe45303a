// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys_test

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/digitorus/timestamp"

	"provost/attest"
	"provost/keys"
)

// An outsideTSA is a timestamp authority that others run: another realm's, by
// HTTP. answer, if set, answers instead.
type outsideTSA struct {
	*httptest.Server
	realm  *loggedRealm
	answer func(w http.ResponseWriter, query []byte)
}

func newOutsideTSA(t *testing.T) *outsideTSA {
	t.Helper()
	o := &outsideTSA{realm: newLoggedRealm(t)}
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query, err := io.ReadAll(r.Body)
		if err != nil || r.Header.Get("Content-Type") != "application/timestamp-query" {
			t.Errorf("query: %v, %v", err, r.Header)
		}
		if o.answer != nil {
			o.answer(w, query)
			return
		}
		response, err := o.realm.TimestampQuery(r.Context(), query)
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(response)
	}))
	t.Cleanup(o.Close)
	return o
}

// authority is how it is configured elsewhere.
func (o *outsideTSA) authority(t *testing.T) *keys.OutsideAuthority {
	t.Helper()
	leaf, err := x509.ParseCertificate(o.realm.archive.find("timestamp").DER)
	check(t, err)
	root, err := x509.ParseCertificate(o.realm.archive.find("root").DER)
	check(t, err)
	return &keys.OutsideAuthority{URL: o.URL, Chain: []*x509.Certificate{leaf, root}}
}

// Outside authorities stamp beside our own or in its place, and sigstore-go
// believes them by our trusted root.
func TestOutsideTimestamps(t *testing.T) {
	a, b := newOutsideTSA(t), newOutsideTSA(t)
	both := []*keys.OutsideAuthority{a.authority(t), b.authority(t)}
	for name, tt := range map[string]struct {
		t      keys.Timestamps
		stamps int
	}{
		"beside our own":     {keys.Timestamps{Outside: both[:1]}, 2},
		"in its place":       {keys.Timestamps{NotOwn: true, Outside: both[:1]}, 1},
		"two in its place":   {keys.Timestamps{NotOwn: true, Outside: both}, 2},
		"one of three needs": {keys.Timestamps{Outside: both, Threshold: 1}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			r := newLoggedRealm(t, func(c *keys.Config) { c.Timestamps = tt.t })
			made := r.sign()
			if got := strings.Count(string(made.Bundle), `"signedTimestamp"`); got != tt.stamps {
				t.Errorf("%d timestamps, want %d", got, tt.stamps)
			}
			if err := r.believed(made.Bundle); err != nil {
				t.Error(err)
			}
		})
	}
}

// One outside that is not published is not asked: its stamp would have every
// verifier refuse the bundle. Where others cannot stand in, nothing is stamped.
func TestOutsideTimestampsArePublishedFirst(t *testing.T) {
	o := newOutsideTSA(t).authority(t)
	for name, tt := range map[string]struct {
		t      keys.Timestamps
		before int // stamps while it is not published; 0 for a refusal
		after  int
	}{
		"beside our own":     {keys.Timestamps{Outside: []*keys.OutsideAuthority{o}}, 1, 2},
		"in its place":       {keys.Timestamps{NotOwn: true, Outside: []*keys.OutsideAuthority{o}}, 0, 1},
		"two must be asked":  {keys.Timestamps{Outside: []*keys.OutsideAuthority{o}, Threshold: 2}, 0, 2},
		"one of two will do": {keys.Timestamps{Outside: []*keys.OutsideAuthority{o}, Threshold: 1}, 1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			var given []byte
			r := newLoggedRealm(t, publishing(&given, new(time.Duration)))
			given = r.ToPublish()
			check(t, r.Close())
			r.config.Timestamps = tt.t
			r.open()
			stamps := func(want int) {
				t.Helper()
				check(t, r.Maintain(t.Context()))
				got, err := r.Timestamp(t.Context(), []byte("signature"))
				if len(got) != want || want == 0 && !errors.Is(err, attest.ErrUnavailable) || want > 0 && err != nil {
					t.Errorf("%d stamps, want %d: %v", len(got), want, err)
				}
			}
			stamps(tt.before)
			given = r.ToPublish()
			stamps(tt.after)
			if err := r.believed(r.sign().Bundle); err != nil {
				t.Error(err)
			}
		})
	}
}

// Too few answers make no bundle; what is not the answer to our question never
// counts.
func TestOutsideTimestampsThatFail(t *testing.T) {
	o, other := newOutsideTSA(t), newOutsideTSA(t)
	query := func(imprint string) []byte {
		sum := sha256.Sum256([]byte(imprint))
		q, err := (&timestamp.Request{HashAlgorithm: crypto.SHA256, HashedMessage: sum[:], Certificates: true, Nonce: big.NewInt(7)}).Marshal()
		check(t, err)
		return q
	}
	for name, answer := range map[string]func(http.ResponseWriter, []byte){
		"an error": func(w http.ResponseWriter, _ []byte) { http.Error(w, "no", http.StatusServiceUnavailable) },
		"a redirect": func(w http.ResponseWriter, _ []byte) {
			w.Header().Set("Location", other.URL)
			w.WriteHeader(http.StatusTemporaryRedirect)
		},
		"nothing":      func(http.ResponseWriter, []byte) {},
		"no DER":       func(w http.ResponseWriter, _ []byte) { _, _ = w.Write([]byte("hello")) },
		"far too much": func(w http.ResponseWriter, _ []byte) { _, _ = w.Write(bytes.Repeat([]byte("x"), 1<<20)) },
		"another question's answer": func(w http.ResponseWriter, _ []byte) {
			response, err := o.realm.TimestampQuery(t.Context(), query("else"))
			check(t, err)
			_, _ = w.Write(response)
		},
		"another authority's answer": func(w http.ResponseWriter, q []byte) {
			response, err := other.realm.TimestampQuery(t.Context(), q)
			check(t, err)
			_, _ = w.Write(response)
		},
	} {
		t.Run(name, func(t *testing.T) {
			o.answer = answer
			var told int
			warn := func(string, ...any) { told++ }
			all := newLoggedRealm(t, func(c *keys.Config) {
				c.Timestamps, c.Warn = keys.Timestamps{Outside: []*keys.OutsideAuthority{o.authority(t)}}, warn
			})
			if stamps, err := all.Timestamp(t.Context(), []byte("signature")); !errors.Is(err, attest.ErrUnavailable) || stamps != nil {
				t.Errorf("all must answer: %d stamps, %v", len(stamps), err)
			}
			one := newLoggedRealm(t, func(c *keys.Config) {
				c.Timestamps, c.Warn = keys.Timestamps{Outside: []*keys.OutsideAuthority{o.authority(t)}, Threshold: 1}, warn
			})
			if stamps, err := one.Timestamp(t.Context(), []byte("signature")); err != nil || len(stamps) != 1 || told == 0 {
				t.Errorf("one must answer: %d stamps, %v, told %d", len(stamps), err, told)
			}
		})
	}
}

func TestTimestampsConfig(t *testing.T) {
	o := newOutsideTSA(t).authority(t)
	again := *o
	again.URL += "/again"
	for name, c := range map[string]keys.Timestamps{
		"nobody":                {NotOwn: true},
		"a threshold too high":  {Threshold: 2},
		"a negative threshold":  {Threshold: -1},
		"one that counts twice": {Outside: []*keys.OutsideAuthority{o, &again}},
	} {
		config, _, _ := newConfig(t)
		config.Timestamps = c
		if err := keys.Init(t.Context(), config, dropRoot); !errors.Is(err, attest.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Our own authority answers RFC 3161 requests, and nothing else.
func TestTimestampQuery(t *testing.T) {
	r := newLoggedRealm(t)
	sum := sha256.Sum256([]byte("message"))
	good := timestamp.Request{HashAlgorithm: crypto.SHA256, HashedMessage: sum[:], Certificates: true, Nonce: big.NewInt(42)}
	query, err := good.Marshal()
	check(t, err)
	response, err := r.TimestampQuery(t.Context(), query)
	check(t, err)
	ts, err := timestamp.ParseResponse(response)
	if err != nil || ts.Nonce.Cmp(good.Nonce) != 0 || !bytes.Equal(ts.HashedMessage, sum[:]) || len(ts.Certificates) != 1 {
		t.Errorf("%+v, %v", ts, err)
	}
	for name, change := range map[string]func(*timestamp.Request){
		"SHA-512":            func(q *timestamp.Request) { q.HashAlgorithm, q.HashedMessage = crypto.SHA512, make([]byte, 64) },
		"another policy":     func(q *timestamp.Request) { q.TSAPolicyOID = []int{1, 2, 3} },
		"a nonce below zero": func(q *timestamp.Request) { q.Nonce = big.NewInt(-5) },
		"a huge nonce":       func(q *timestamp.Request) { q.Nonce = new(big.Int).Lsh(big.NewInt(1), 2000) },
	} {
		q := good
		change(&q)
		query, err := q.Marshal()
		check(t, err)
		if _, err := r.TimestampQuery(t.Context(), query); !errors.Is(err, attest.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, query := range [][]byte{nil, []byte("x"), query[:len(query)-1]} {
		if _, err := r.TimestampQuery(t.Context(), query); !errors.Is(err, attest.ErrInvalid) {
			t.Errorf("%x: %v", query, err)
		}
	}
}
