// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"provost/verify"
)

// A comparison holds a bundle against sigstore-go, mutated one way after
// another.
type comparison struct {
	t        testing.TB
	trust    *verify.Trust
	root     []byte
	good     goldenBundle
	tried    int
	believed []string
}

// try fails when a mutated bundle is believed here and not by sigstore-go, or
// when what is believed is not what was signed.
func (c *comparison) try(raw []byte, how string) {
	c.t.Helper()
	c.tried++
	v, err := c.trust.Verify(raw, verify.Expect{Artifact: app, Identity: verify.Identity{Issuer: service}})
	if (err == nil) != (v != nil) {
		c.t.Errorf("%s: %s: %v with %v", c.good.name, how, v, err)
	}
	if err != nil {
		return
	}
	c.believed = append(c.believed, how)
	if theirs := foreign(c.root, raw, app, c.good.signer); theirs != nil {
		c.t.Errorf("%s: %s: believed, and sigstore-go says %v", c.good.name, how, theirs)
	}
	was, is := decodeBundle(c.t, c.good.raw), decodeBundle(c.t, raw)
	if !bytes.Equal(was.GetDsseEnvelope().GetPayload(), is.GetDsseEnvelope().GetPayload()) ||
		!bytes.Equal(leafOf(was), leafOf(is)) || v.Identity() != c.good.signer {
		c.t.Errorf("%s: %s: something else is believed", c.good.name, how)
	}
	if len(is.GetVerificationMaterial().GetTlogEntries()) == 0 || len(stamps(is).GetRfc3161Timestamps()) == 0 {
		c.t.Errorf("%s: %s: believed without a log entry or a timestamp", c.good.name, how)
	}
}

// Whatever is done to one part of a bundle that has a log entry, SCTs and
// timestamps: every member and element left out, doubled, emptied or put in
// another's place, every number moved, and the bytes of what is base64 inside:
// payload, signature, certificate, timestamps, body, proof, checkpoint.
func TestNoPartIsLaxerThanSigstoreGo(t *testing.T) {
	g := readGolden(t)
	stride := 2 // every other byte, another bit of each
	if testing.Short() {
		stride = 11
	}
	for _, b := range g.bundles {
		if b.root != fullRoot {
			continue
		}
		t.Run(b.name, func(t *testing.T) {
			c := &comparison{t: t, trust: must(verify.ParseTrust(g.rootOf(b))), root: g.rootOf(b), good: b}
			tree := must(parseTree(b.raw))
			c.structure(tree)
			for i, n := range tree.all() {
				if n.kind == '"' {
					c.scalar(tree, n, fmt.Sprintf("part %d, %.24s", i, n.scalar), stride)
				}
			}
			if c.try(tree.encode(), "nothing changed"); len(c.believed) == 0 {
				t.Fatal("the good one is not believed")
			}
			t.Logf("%d mutations, %d believed", c.tried, len(c.believed))
			if c.tried < 5000/stride || len(c.believed) > c.tried/4 {
				t.Errorf("%d mutations, %d believed: too tame to compare by", c.tried, len(c.believed))
			}
		})
	}
}

// structure mutates objects and lists.
func (c *comparison) structure(tree *node) {
	nodes := tree.all()
	for _, n := range nodes {
		members, elements := n.members, n.elements
		for i, m := range members {
			name := string(m.name)
			n.members = slices.Concat(members[:i], members[i+1:])
			c.try(tree.encode(), name+" left out")
			n.members = slices.Concat(members[:i+1], members[i:])
			c.try(tree.encode(), name+" twice")
			n.members = members
			for _, v := range []string{`null`, `""`, `{}`, `[]`, `0`, `"0"`, `true`, `[{}]`, `[null]`} {
				n.members[i].value = &node{kind: '"', scalar: []byte(v)}
				c.try(tree.encode(), name+" is "+v)
			}
			for _, other := range nodes { // of what stands in it, none: a tree has an end
				if !slices.Contains(other.all(), n) {
					n.members[i].value = other
					c.try(tree.encode(), name+" is another part")
				}
			}
			n.members[i] = m
		}
		for i := range elements {
			n.elements = slices.Concat(elements[:i], elements[i+1:])
			c.try(tree.encode(), "an element left out")
			n.elements = slices.Concat(elements[:i+1], elements[i:])
			c.try(tree.encode(), "an element twice")
		}
		n.elements = elements
		if len(n.elements) > 1 {
			slices.Reverse(n.elements)
			c.try(tree.encode(), "elements in reverse")
			slices.Reverse(n.elements)
		}
	}
}

// scalar mutates one string or number.
func (c *comparison) scalar(tree, n *node, name string, stride int) {
	was := n.scalar
	defer func() { n.scalar = was }()
	text, err := strconv.Unquote(string(was))
	if err != nil {
		text = string(was)
	}
	as := func(text, how string) {
		n.scalar = []byte(strconv.Quote(text))
		c.try(tree.encode(), name+": "+how)
	}
	if number, err := strconv.ParseInt(text, 10, 64); err == nil {
		for _, d := range []int64{-number - 1, -1, 1, 1 << 40} {
			as(strconv.FormatInt(number+d, 10), fmt.Sprintf("moved by %d", d))
		}
		for _, format := range []string{"+%s", "0%s", " %s", "%s.0", "%se0", "0x%s"} {
			as(fmt.Sprintf(format, text), "as "+format)
		}
		return
	}
	if data, err := base64.StdEncoding.DecodeString(text); err == nil && len(text) > 16 {
		for i := 0; i < len(data); i += stride {
			data[i] ^= 1 << (i / stride % 8)
			as(base64.StdEncoding.EncodeToString(data), fmt.Sprintf("byte %d of %d flipped", i, len(data)))
			data[i] ^= 1 << (i / stride % 8)
		}
		for how, other := range map[string][]byte{
			"a byte more": append(slices.Clone(data), 0), "a byte less": data[:len(data)-1], "a byte before": append([]byte{0}, data...),
			"the first byte missing": data[1:], "twice": slices.Concat(data, data), "half": data[:len(data)/2],
		} {
			as(base64.StdEncoding.EncodeToString(other), how)
		}
		as(base64.URLEncoding.EncodeToString(data), "as base64url")
		as(base64.RawStdEncoding.EncodeToString(data), "without padding")
		as(text+"\n", "with an end of line")
		return
	}
	for i := 0; i < len(text); i += stride { // the checkpoint, and names
		as(text[:i]+string(text[i]^1)+text[i+1:], fmt.Sprintf("character %d changed", i))
		as(text[:i]+text[i+1:], fmt.Sprintf("character %d left out", i))
		as(text[:i]+"\n"+text[i:], fmt.Sprintf("an end of line at %d", i))
	}
	lines := strings.SplitAfter(text, "\n")
	for i := range lines {
		as(strings.Join(slices.Concat(lines[:i], lines[i+1:]), ""), fmt.Sprintf("line %d left out", i))
		as(strings.Join(slices.Concat(lines[:i+1], lines[i:]), ""), fmt.Sprintf("line %d twice", i))
	}
}

// FuzzNeverLaxer is TestNeverLaxerThanSigstoreGo without an end, up to three
// mutations on top of each other.
func FuzzNeverLaxer(f *testing.F) {
	g := readGolden(f)
	trusts := g.trusts()
	for i := range g.bundles {
		f.Add(uint8(i), uint64(1), uint8(0))
	}
	f.Fuzz(func(t *testing.T, which uint8, seed uint64, more uint8) {
		b := g.bundles[int(which)%len(g.bundles)]
		random := rand.New(rand.NewPCG(seed, 2))
		raw, how := b.raw, ""
		for range 1 + more%3 {
			if _, err := parseTree(raw); err != nil {
				break
			}
			var step string
			raw, step = mutate(t, random, raw, g.bundles[random.IntN(len(g.bundles))].raw)
			how += step + "; "
		}
		v, err := trusts[b.root].Verify(raw, verify.Expect{Artifact: app, Identity: verify.Identity{Issuer: service}})
		if (err == nil) != (v != nil) {
			t.Fatalf("%s: %s: %v with %v", b.name, how, v, err)
		}
		if err != nil {
			return
		}
		if theirs := foreign(g.rootOf(b), raw, app, v.Identity()); theirs != nil {
			t.Fatalf("%s: %s: believed, and sigstore-go says %v", b.name, how, theirs)
		}
	})
}
