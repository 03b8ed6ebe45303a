// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"bytes"
	"encoding/base64"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"

	"provost/attest"
	"provost/verify"
)

var update = flag.Bool("update", false, "sign testdata/golden anew")

// golden are bundles about app that were signed once, by keys that are gone:
// for tests that must see the same bytes every time, and as a promise that what
// was believed stays believed. Each is good under one of the roots.
type golden struct {
	roots   [3][]byte // trusted roots
	bundles []goldenBundle
}

// The roots of golden bundles: the first knows authorities, the second a log of
// seven entries beside them; the third is of a lab, and knows certificate logs
// as well.
const (
	plainRoot = iota
	loggedRoot
	fullRoot
)

type goldenBundle struct {
	name   string
	raw    []byte
	root   int
	signer verify.Identity
}

var goldenSigners = map[string]attest.Power{
	"provenance": attest.PowerProvenance, "cyclonedx": attest.PowerEvidence, "spdx": attest.PowerEvidence, "verdict": attest.PowerVerdict,
}

func readGolden(t testing.TB) golden {
	t.Helper()
	read := func(name string) []byte {
		raw, err := os.ReadFile(filepath.Join("testdata", "golden", name+".json"))
		check(t, err)
		return raw
	}
	g := golden{roots: [3][]byte{read("trusted_root"), read("trusted_root.logged"), read("trusted_root.full")}}
	for _, name := range []string{"provenance", "cyclonedx", "spdx", "verdict"} {
		signer := verify.SignerIdentity(service, goldenSigners[name])
		g.bundles = append(g.bundles,
			goldenBundle{name, read(name), plainRoot, signer}, goldenBundle{name + ".logged", read(name + ".logged"), loggedRoot, signer})
	}
	for _, name := range []string{"provenance", "verdict"} {
		g.bundles = append(g.bundles, goldenBundle{name + ".full", read(name + ".full"), fullRoot, verify.SignerIdentity(service, goldenSigners[name])})
	}
	return g
}

// rootOf is the trusted root that a bundle is good under.
func (g golden) rootOf(b goldenBundle) []byte { return g.roots[b.root] }

// trusts are the roots, read.
func (g golden) trusts() (all [3]*verify.Trust) {
	for i, raw := range g.roots {
		all[i] = must(verify.ParseTrust(raw))
	}
	return all
}

func writeGolden(t *testing.T) {
	t.Helper()
	write := func(name string, raw []byte) {
		v := jsontext.Value(slices.Clone(raw))
		check(t, v.Compact())
		check(t, os.WriteFile(filepath.Join("testdata", "golden", name+".json"), append(v, '\n'), 0o644))
	}
	check(t, os.MkdirAll(filepath.Join("testdata", "golden"), 0o755))
	r := ours()
	l := newLog(t, "log.provost.example")
	l.fill(1)
	bundles := map[string][]byte{}
	for name, p := range map[string]attest.Predicate{
		"provenance": attest.Provenance{}, "cyclonedx": attest.SBOM{Document: []byte(cycloneDXDoc)},
		"spdx": attest.SBOM{Document: []byte(spdxDoc)}, "verdict": verdictOf(true),
	} {
		bundles[name] = r.issue(t, newMemory(t), goodBuild(), p).Bundle
	}
	index := map[string]int{}
	for name, raw := range bundles {
		index[name] = l.add(raw)
	}
	l.fill(2)
	for name, raw := range bundles {
		write(name, raw)
		write(name+".logged", l.logged(raw, index[name]))
	}
	write("trusted_root", r.root)
	write("trusted_root.logged", l.known(r.root))

	full := newLab(t)
	full.log.fill(2)
	twice := []promise{{log: full.ctlogs[0], at: -time.Minute}, {log: full.ctlogs[1], at: -time.Minute}}
	by := full.leaf(attest.PowerVerdict, twice...)
	write("provenance.full", full.provenance())
	write("verdict.full", full.logged(by, payloadOf(t, bundles["verdict"]), full.now, full.now.Add(time.Second)))
	write("trusted_root.full", full.trusted(nil))
}

func TestGolden(t *testing.T) {
	if *update {
		writeGolden(t)
	}
	g := readGolden(t)
	for _, b := range g.bundles {
		v, err := must(verify.ParseTrust(g.rootOf(b))).Verify(b.raw, verify.Expect{Artifact: app})
		if err != nil {
			t.Errorf("%s: %v", b.name, err)
		} else if v.Identity() != b.signer {
			t.Errorf("%s: signed by %+v; want %+v", b.name, v.Identity(), b.signer)
		}
		if err := foreign(g.rootOf(b), b.raw, app, b.signer); err != nil {
			t.Errorf("%s, sigstore-go: %v", b.name, err)
		}
	}
	if len(g.bundles) != 10 {
		t.Errorf("%d bundles", len(g.bundles))
	}
}

// Whatever is done to a good bundle: what sigstore-go refuses is refused here,
// and what is believed says, byte for byte, what was signed.
func TestNeverLaxerThanSigstoreGo(t *testing.T) {
	mutations := 2000
	if testing.Short() {
		mutations = 500
	}
	g := readGolden(t)
	trusts := g.trusts()
	var believed, onlyTheirs, refused int
	for i := range uint64(mutations) {
		random := rand.New(rand.NewPCG(1, i))
		b := g.bundles[random.IntN(len(g.bundles))]
		raw, how := mutate(t, random, b.raw, g.bundles[random.IntN(len(g.bundles))].raw)
		v, err := trusts[b.root].Verify(raw, verify.Expect{Artifact: app, Identity: verify.Identity{Issuer: service}})
		theirs := foreign(g.rootOf(b), raw, app, b.signer)
		switch {
		case err == nil && theirs != nil:
			t.Errorf("%s, mutation %d: %s: believed, and sigstore-go says %v", b.name, i, how, theirs)
		case (err == nil) != (v != nil):
			t.Errorf("%s, mutation %d: %s: %v with %v", b.name, i, how, v, err)
		case err == nil:
			believed++
			was, is := decodeBundle(t, b.raw), decodeBundle(t, raw)
			if !bytes.Equal(was.GetDsseEnvelope().GetPayload(), is.GetDsseEnvelope().GetPayload()) ||
				!bytes.Equal(leafOf(was), leafOf(is)) || v.Identity() != b.signer {
				t.Errorf("%s, mutation %d: %s: something else is believed", b.name, i, how)
			}
		case theirs == nil:
			onlyTheirs++
		default:
			refused++
		}
	}
	t.Logf("%d mutations: %d believed, %d only by sigstore-go, %d refused", mutations, believed, onlyTheirs, refused)
	if believed == 0 || onlyTheirs == 0 || refused < mutations/2 {
		t.Error("the mutations are too tame or too wild to compare by")
	}
}

func leafOf(b *protobundle.Bundle) []byte {
	return b.GetVerificationMaterial().GetCertificate().GetRawBytes()
}

// mutate changes a document in one of many ways, and says how.
func mutate(t testing.TB, random *rand.Rand, raw, donor []byte) (mutated []byte, how string) {
	t.Helper()
	tree, err := parseTree(raw)
	check(t, err)
	var objects, lists, scalars []*node
	for _, n := range tree.all() {
		switch {
		case len(n.members) > 0:
			objects = append(objects, n)
		case len(n.elements) > 0:
			lists = append(lists, n)
		case n.kind == '"':
			scalars = append(scalars, n)
		}
	}
	pick := func(nodes []*node) *node { return nodes[random.IntN(len(nodes))] }
	object, list, scalar := pick(objects), pick(lists), pick(scalars)
	m, e := random.IntN(len(object.members)), random.IntN(len(list.elements))
	name := string(object.members[m].name)
	switch random.IntN(16) {
	case 0:
		at := random.IntN(len(raw))
		raw = slices.Clone(raw)
		raw[at] ^= 1 << random.IntN(8)
		return raw, fmt.Sprintf("byte %d flipped", at)
	case 1:
		at := random.IntN(len(raw))
		return slices.Delete(slices.Clone(raw), at, at+1), fmt.Sprintf("byte %d deleted", at)
	case 2:
		at := random.IntN(len(raw))
		return slices.Insert(slices.Clone(raw), at, " \n\t0aA\"\\{}[],:"[random.IntN(14)]), fmt.Sprintf("a byte inserted at %d", at)
	case 3:
		object.members = slices.Delete(object.members, m, m+1)
		how = name + " deleted"
	case 4:
		object.members = append(object.members, object.members[m])
		how = name + " doubled"
	case 5:
		object.members[m].value = pick(must(parseTree(donor)).all())
		how = name + " replaced by any part of another bundle"
	case 6:
		object.members[m].value = &node{kind: '"', scalar: []byte("null")}
		how = name + " null"
	case 7:
		object.members[m].name = []byte(snake(name))
		how = name + " by its .proto name"
	case 8:
		random.Shuffle(len(object.members), func(i, j int) {
			object.members[i], object.members[j] = object.members[j], object.members[i]
		})
		how = "members in another order"
	case 9:
		list.elements = slices.Delete(list.elements, e, e+1)
		how = "an element deleted"
	case 10:
		list.elements = append(list.elements, list.elements[e])
		how = "an element doubled"
	case 11:
		i := random.IntN(len(scalars))
		others := slices.DeleteFunc(must(parseTree(donor)).all(), func(n *node) bool { return n.kind != '"' })
		scalars[i].scalar = others[min(i, len(others)-1)].scalar
		how = "the same part of another bundle"
	case 12: // as base64 of other bytes
		text, _ := strconv.Unquote(string(scalar.scalar))
		if data, err := base64.StdEncoding.DecodeString(text); err == nil && len(data) > 0 {
			at := random.IntN(len(data))
			data[at] ^= 1 << random.IntN(8)
			scalar.scalar = []byte(strconv.Quote(base64.StdEncoding.EncodeToString(data)))
			how = fmt.Sprintf("byte %d flipped inside the base64 of %.20s", at, text)
		}
	case 13: // as other base64 of the same bytes
		text, _ := strconv.Unquote(string(scalar.scalar))
		if data, err := base64.StdEncoding.DecodeString(text); err == nil {
			scalar.scalar = []byte(strconv.Quote(base64.RawURLEncoding.EncodeToString(data)))
			how = "other base64 of the same bytes"
		}
	case 14:
		scalar.scalar = []byte([]string{`0`, `"0"`, `-1`, `1e3`, `true`, `""`, `{}`, `"\u0000"`, `9223372036854775808`}[random.IntN(9)])
		how = "a scalar of another kind"
	case 15:
		if n, err := strconv.ParseInt(strings.Trim(string(scalar.scalar), `"`), 10, 64); err == nil {
			scalar.scalar = []byte(strconv.FormatInt(n+int64(random.IntN(3))-1, 10))
			how = "a number moved by one or unquoted"
		}
	}
	return tree.encode(), how
}

// snake is the .proto name of a field's quoted JSON name.
func snake(name string) string {
	var b strings.Builder
	for _, c := range name {
		if 'A' <= c && c <= 'Z' {
			b.WriteString("_" + strings.ToLower(string(c)))
			continue
		}
		b.WriteRune(c)
	}
	return b.String()
}
