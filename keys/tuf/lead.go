// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package tuf

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	trustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"provost/attest"
)

// An authority is an entry of a trusted root.
type authority struct {
	kind, name string
	// id tells authorities apart: the same keys and certificates are the same
	// authority, whatever its windows.
	id         string
	start, end time.Time // end is zero if it has none
	born       time.Time // notBefore of what it signs with; zero for a log
}

func (a authority) String() string {
	until := "without end"
	if !a.end.IsZero() {
		until = "until " + when(a.end)
	}
	return fmt.Sprintf("%s %s  %s  from %s %s", a.kind, printable(a.name), a.id[:16], when(a.start), until)
}

// printable is a name that cannot look like something else on a terminal.
func printable(name string) string {
	if len(name) > 200 {
		name = name[:200] + "…"
	}
	if quoted := strconv.QuoteToASCII(name); quoted != `"`+name+`"` || strings.Contains(name, " ") {
		return quoted
	}
	return name
}

// The kinds of logs.
const (
	kindLog   = "transparency log"
	kindCTLog = "certificate log"
)

// readAuthorities reads a trusted root, which must be one that clients accept
// and in which every entry has a start.
func readAuthorities(raw []byte) ([]authority, error) {
	if _, err := root.NewTrustedRootFromJSON(raw); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", attest.ErrInvalid, trustedRootName, err)
	}
	var pb trustroot.TrustedRoot
	if err := protojson.Unmarshal(raw, &pb); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", attest.ErrInvalid, trustedRootName, err)
	}
	var all []authority
	for _, group := range []struct {
		kind    string
		entries []*trustroot.CertificateAuthority
	}{{"certificate authority", pb.CertificateAuthorities}, {"timestamp authority", pb.TimestampAuthorities}} {
		for _, e := range group.entries {
			a := authority{kind: group.kind, name: e.GetUri()}
			h := sha256.New()
			h.Write([]byte(group.kind))
			for i, c := range e.GetCertChain().GetCertificates() {
				sum := sha256.Sum256(c.GetRawBytes())
				h.Write(sum[:])
				cert, err := x509.ParseCertificate(c.GetRawBytes())
				if err != nil {
					return nil, fmt.Errorf("%w: %s: %s %s: %w", attest.ErrInvalid, trustedRootName, a.kind, printable(a.name), err)
				}
				if i == 0 {
					a.born = cert.NotBefore
				}
			}
			a.id = hex.EncodeToString(h.Sum(nil))
			if err := a.window(e.GetValidFor()); err != nil {
				return nil, err
			}
			if a.born.IsZero() {
				return nil, fmt.Errorf("%w: %s: %s %s has no certificates", attest.ErrInvalid, trustedRootName, a.kind, printable(a.name))
			}
			all = append(all, a)
		}
	}
	for _, group := range []struct {
		kind    string
		entries []*trustroot.TransparencyLogInstance
	}{{kindLog, pb.Tlogs}, {kindCTLog, pb.Ctlogs}} {
		for _, e := range group.entries {
			a := authority{kind: group.kind, name: e.GetBaseUrl()}
			// Not where it is read: that may change, and says nothing of what is believed.
			sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%x\n%x", group.kind, e.GetLogId().GetKeyId(), e.GetPublicKey().GetRawBytes()))
			a.id = hex.EncodeToString(sum[:])
			if err := a.window(e.GetPublicKey().GetValidFor()); err != nil {
				return nil, err
			}
			all = append(all, a)
		}
	}
	return all, nil
}

func (a *authority) window(w *v1.TimeRange) error {
	if w.GetStart() == nil {
		return fmt.Errorf("%w: %s: %s %s has no validFor.start", attest.ErrInvalid, trustedRootName, a.kind, printable(a.name))
	}
	a.start = w.GetStart().AsTime()
	if w.GetEnd() != nil {
		a.end = w.GetEnd().AsTime()
	}
	return nil
}

// checkLead refuses a trusted root in which an authority is new, or begins
// earlier than was published, and could be used before lead has passed:
// clients look for a new root once a day, and one that has not seen the
// authority refuses what it made.
func checkLead(before, after []byte, now time.Time, lead time.Duration) error {
	was, err := readAuthorities(before)
	if err != nil {
		return fmt.Errorf("published %w", err)
	}
	is, err := readAuthorities(after)
	if err != nil {
		return err
	}
	first := map[string]time.Time{} // when an authority begins, as published
	for _, a := range was {
		if t, ok := first[a.id]; !ok || a.start.Before(t) {
			first[a.id] = a.start
		}
	}
	earliest := now.Add(lead)
	for _, a := range is {
		published, known := first[a.id]
		if known && !a.start.Before(published) {
			continue
		}
		// The certificate counts as well: its key may sign from then on.
		if a.start.Before(earliest) || !known && !a.born.IsZero() && a.born.Before(earliest) {
			return fmt.Errorf("%w: %s %s (%s) was not published before: it may begin at %s at the earliest, %s after its publication, also in its certificate",
				attest.ErrDenied, a.kind, printable(a.name), a.id[:16], when(earliest), lead)
		}
	}
	return nil
}

// CheckKept compares a trusted root with the one that is published. It is an
// [attest.ErrConflict] if it trusts again what the published one has ceased to
// trust: revocations are never taken back, so those were lost, with a database
// that was put back to an older state for instance. dropped are the authorities
// that are published and not in it.
func CheckKept(published, trustedRoot []byte) (dropped []string, err error) {
	was, err := readAuthorities(published)
	if err != nil {
		return nil, fmt.Errorf("published %w", err)
	}
	is, err := readAuthorities(trustedRoot)
	if err != nil {
		return nil, err
	}
	for _, a := range is {
		known := slices.ContainsFunc(was, func(b authority) bool { return b.id == a.id })
		if known && !slices.ContainsFunc(was, a.within) {
			return nil, fmt.Errorf("%w: it trusts %s, and what is published has ceased to trust a part of that: a revocation is lost", attest.ErrConflict, a)
		}
	}
	for _, a := range was {
		if !slices.ContainsFunc(is, func(b authority) bool { return b.id == a.id }) {
			dropped = append(dropped, a.String())
		}
	}
	return dropped, nil
}

// within reports whether a is trusted only when b is.
func (a authority) within(b authority) bool {
	return a.id == b.id && !a.start.Before(b.start) && (b.end.IsZero() || !a.end.IsZero() && !a.end.After(b.end))
}

// checkDropped refuses a trusted root that has lost authorities, or revocations.
func checkDropped(published, trustedRoot []byte, allowed bool) error {
	dropped, err := CheckKept(published, trustedRoot)
	if err != nil {
		return err
	}
	for _, d := range dropped {
		if strings.HasPrefix(d, kindLog) || strings.HasPrefix(d, kindCTLog) { // closed: who is told of no log asks for no entries
			return fmt.Errorf("%w: it drops %s: end its window instead, or whoever verifies with it asks for no entries", attest.ErrDenied, d)
		}
	}
	if len(dropped) > 0 && !allowed {
		return fmt.Errorf("%w: it drops what is published: %s: clients would refuse all that it ever vouched for", attest.ErrDenied, strings.Join(dropped, "; "))
	}
	return nil
}

// Restrict returns what is left of a trusted root when it trusts nothing that
// clients of the published one do not: the windows of an authority that both
// have are those in which both trust it. Clients cannot know an authority that is
// not published, or are not to know it any more: keep says which stay. For
// KeepPublished, which is for whoever verifies, a log stays in any case, if with a
// window long ago: who is told of no log asks for no entries. changed says what was taken away, for people; without
// any the trusted root is returned as it was.
func Restrict(published, trustedRoot []byte, now time.Time, keep Keep) (left []byte, changed []string, err error) {
	was, err := readAuthorities(published)
	if err != nil {
		return nil, nil, fmt.Errorf("published %w", err)
	}
	is, err := readAuthorities(trustedRoot)
	if err != nil {
		return nil, nil, err
	}
	var pb trustroot.TrustedRoot
	if err := protojson.Unmarshal(trustedRoot, &pb); err != nil {
		return nil, nil, fmt.Errorf("%w: %s: %w", attest.ErrInvalid, trustedRootName, err)
	}
	next := 0 // in the order of readAuthorities
	windows := func() []*v1.TimeRange {
		a := is[next]
		next++
		var left []authority
		known := false
		for _, b := range was {
			if a.id != b.id {
				continue
			}
			known = true
			if both, ok := a.and(b); ok {
				left = append(left, both)
			}
		}
		if !known && (keep == KeepNew || keep == KeepComing && a.start.After(now)) {
			left = []authority{a}
		}
		if a.log() && len(left) == 0 && (known || keep == KeepPublished) { // closed: entries are asked for, and none is good
			never := a
			never.start, never.end = time.Unix(0, 0), time.Unix(0, 0)
			left = []authority{never}
		}
		if a.log() && len(left) > 1 { // a log has one window for every client
			left = left[len(left)-1:]
		}
		if len(left) != 1 || !left[0].start.Equal(a.start) || !left[0].end.Equal(a.end) {
			changed = append(changed, a.String())
		}
		var ranges []*v1.TimeRange
		for _, l := range left {
			r := &v1.TimeRange{Start: timestamppb.New(l.start)}
			if !l.end.IsZero() {
				r.End = timestamppb.New(l.end)
			}
			ranges = append(ranges, r)
		}
		return ranges
	}
	authorities := func(all []*trustroot.CertificateAuthority) (left []*trustroot.CertificateAuthority) {
		for _, e := range all {
			for _, w := range windows() {
				c := proto.CloneOf(e)
				c.ValidFor = w
				left = append(left, c)
			}
		}
		return left
	}
	logs := func(all []*trustroot.TransparencyLogInstance) (left []*trustroot.TransparencyLogInstance) {
		for _, e := range all {
			for _, w := range windows() {
				c := proto.CloneOf(e)
				c.PublicKey.ValidFor = w
				left = append(left, c)
			}
		}
		return left
	}
	pb.CertificateAuthorities = authorities(pb.CertificateAuthorities)
	pb.TimestampAuthorities = authorities(pb.TimestampAuthorities)
	pb.Tlogs = logs(pb.Tlogs)
	pb.Ctlogs = logs(pb.Ctlogs)
	if len(changed) == 0 {
		return trustedRoot, nil, nil
	}
	raw, err := protojson.Marshal(&pb)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", trustedRootName, err)
	}
	v := jsontext.Value(raw) // protojson varies its white space on purpose
	if err := v.Canonicalize(); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", trustedRootName, err)
	}
	return v, changed, nil
}

// A Keep says which authorities that are not published stay in [Restrict].
type Keep int

const (
	KeepPublished Keep = iota // none
	KeepComing                // those that have not begun
	KeepNew                   // all
)

// log reports whether it is a log.
func (a authority) log() bool { return a.born.IsZero() }

// and is an authority in the time in which both are trusted; not ok if there is
// none.
func (a authority) and(b authority) (both authority, ok bool) {
	both = a
	if b.start.After(a.start) {
		both.start = b.start
	}
	if a.end.IsZero() || !b.end.IsZero() && b.end.Before(a.end) {
		both.end = b.end
	}
	return both, both.end.IsZero() || !both.end.Before(both.start)
}
