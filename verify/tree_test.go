// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"bytes"

	"github.com/go-json-experiment/json/jsontext"
)

// A node is JSON that can say what a parser's value cannot: the same key
// twice, or one by another name.
type node struct {
	kind     byte // as of jsontext.Kind; '"' stands for every scalar
	scalar   []byte
	members  []member
	elements []*node
}

type member struct {
	name  []byte // with its quotes
	value *node
}

func parseTree(raw []byte) (*node, error) {
	return readNode(jsontext.NewDecoder(bytes.NewReader(raw)))
}

func readNode(d *jsontext.Decoder) (*node, error) {
	switch d.PeekKind() {
	case '{':
		_, _ = d.ReadToken()
		n := &node{kind: '{'}
		for d.PeekKind() != '}' {
			name, err := d.ReadValue()
			if err != nil {
				return nil, err
			}
			m := member{name: bytes.Clone(name)}
			if m.value, err = readNode(d); err != nil {
				return nil, err
			}
			n.members = append(n.members, m)
		}
		_, err := d.ReadToken()
		return n, err
	case '[':
		_, _ = d.ReadToken()
		n := &node{kind: '['}
		for d.PeekKind() != ']' {
			e, err := readNode(d)
			if err != nil {
				return nil, err
			}
			n.elements = append(n.elements, e)
		}
		_, err := d.ReadToken()
		return n, err
	}
	scalar, err := d.ReadValue()
	return &node{kind: '"', scalar: bytes.Clone(scalar)}, err
}

func (n *node) encode() []byte { return n.append(nil) }

func (n *node) append(to []byte) []byte {
	switch n.kind {
	case '{':
		to = append(to, '{')
		for i, m := range n.members {
			if i > 0 {
				to = append(to, ',')
			}
			to = append(append(to, m.name...), ':')
			to = m.value.append(to)
		}
		return append(to, '}')
	case '[':
		to = append(to, '[')
		for i, e := range n.elements {
			if i > 0 {
				to = append(to, ',')
			}
			to = e.append(to)
		}
		return append(to, ']')
	}
	return append(to, n.scalar...)
}

// all is n and everything in it.
func (n *node) all() []*node {
	nodes := []*node{n}
	for _, m := range n.members {
		nodes = append(nodes, m.value.all()...)
	}
	for _, e := range n.elements {
		nodes = append(nodes, e.all()...)
	}
	return nodes
}
