// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package tile

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api/layout"
	"golang.org/x/crypto/cryptobyte"
)

// A Layout says how entries stand in their bundles, and what of an entry is
// hashed into the tree.
type Layout int

const (
	// Entries is the layout of c2sp.org/tlog-tiles: bundles under
	// tile/entries, each entry after its length in two bytes. All of an entry
	// is hashed.
	Entries Layout = iota
	// Certificates is the layout of c2sp.org/static-ct-api: bundles under
	// tile/data, each entry a TileLeaf. What is hashed is its MerkleTreeLeaf.
	Certificates
)

// Bounds of an entry, in bytes.
const (
	maxEntry       = 1<<16 - 1 // its length has two bytes
	maxCertificate = 256 << 10
)

func (l Layout) maxEntry() int {
	if l == Certificates {
		return maxCertificate
	}
	return maxEntry
}

// dir is where the bundles are, under tile/.
func (l Layout) dir() string {
	if l == Certificates {
		return "data"
	}
	return "entries"
}

// bundlePath is the path of a bundle; partial is how many entries it has, and
// 0 says all 256.
func (l Layout) bundlePath(index uint64, partial uint8) string {
	return "tile/" + l.dir() + "/" + layout.NWithSuffix(0, index, partial)
}

// frame makes of an entry what stands in its bundle.
func (l Layout) frame(entry []byte) []byte {
	if l == Certificates {
		return entry
	}
	return append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(entry)), uint16(len(entry))), entry...)
}

var errTorn = errors.New("ends within an entry")

// next cuts the first entry off a bundle. prefix and leaf together are what is
// hashed of it.
func (l Layout) next(bundle []byte) (entry, prefix, leaf, rest []byte, err error) {
	s := cryptobyte.String(bundle)
	if l != Certificates {
		var data cryptobyte.String
		if !s.ReadUint16LengthPrefixed(&data) {
			return nil, nil, nil, nil, errTorn
		}
		return data, nil, data, s, nil
	}
	// RFC 6962: the leaf is version, leaf type, and all of a TileLeaf up to the
	// extensions. What follows them is not hashed.
	var kind uint16
	var field cryptobyte.String
	if !s.Skip(8) || !s.ReadUint16(&kind) {
		return nil, nil, nil, nil, errTorn
	}
	switch {
	case kind > 1:
		return nil, nil, nil, nil, fmt.Errorf("entry of unknown type %d", kind)
	case kind == 1 && !s.Skip(32), !s.ReadUint24LengthPrefixed(&field), !s.ReadUint16LengthPrefixed(&field):
		return nil, nil, nil, nil, errTorn
	}
	leaf = bundle[:len(bundle)-len(s)]
	if kind == 1 && !s.ReadUint24LengthPrefixed(&field) || !s.ReadUint16LengthPrefixed(&field) {
		return nil, nil, nil, nil, errTorn
	}
	return bundle[:len(bundle)-len(s)], []byte{0, 0}, leaf, s, nil
}

// leafHash is what stands for an entry in the tree.
func leafHash(prefix, leaf []byte) []byte {
	h := sha256.New()
	h.Write([]byte{rfc6962.RFC6962LeafHashPrefix})
	h.Write(prefix)
	h.Write(leaf)
	return h.Sum(nil)
}

// count counts the entries of a bundle.
func (l Layout) count(bundle []byte) (n int, err error) {
	for ; len(bundle) > 0 && err == nil; n++ {
		_, _, _, bundle, err = l.next(bundle)
	}
	return n, err
}

// split reads the first n entries of a bundle.
func (l Layout) split(bundle []byte, n int) (entries, leafHashes [][]byte, size int, err error) {
	rest := bundle
	for range n {
		var entry, prefix, leaf []byte
		if entry, prefix, leaf, rest, err = l.next(rest); err != nil {
			return nil, nil, 0, err
		}
		entries, leafHashes = append(entries, entry), append(leafHashes, leafHash(prefix, leaf))
	}
	return entries, leafHashes, len(bundle) - len(rest), nil
}

// A place is a tile or a bundle within a log.
type place struct {
	bundle  bool
	level   uint64 // 0 for a bundle
	index   uint64
	partial uint8 // 0: it is full
}

func (l Layout) path(p place) string {
	if p.bundle {
		return l.bundlePath(p.index, p.partial)
	}
	return layout.TilePath(p.level, p.index, p.partial)
}

// parsePath is the inverse of path. It knows exactly one path for each place,
// so nothing that it accepts leads anywhere else.
func (l Layout) parsePath(path string) (p place, ok bool) {
	name, ok := strings.CutPrefix(path, "tile/")
	if !ok || len(path) > 100 {
		return p, false
	}
	level, index, ok := strings.Cut(name, "/")
	if !ok {
		return p, false
	}
	var err error
	if level == l.dir() {
		p.bundle = true
	} else if p.level, err = layout.ParseTileLevel(level); err != nil {
		return p, false
	}
	if p.index, p.partial, err = layout.ParseTileIndexPartial(index); err != nil {
		return p, false
	}
	return p, l.path(p) == path
}

// within reports whether a tree of that size has the place.
func (p place) within(size uint64) bool {
	if p.level > 7 {
		return false // 256^8 entries
	}
	nodes := size >> (p.level * layout.TileHeight)
	if p.partial == 0 {
		return p.index < nodes/layout.TileWidth
	}
	return p.index < nodes/layout.TileWidth || p.index == nodes/layout.TileWidth && uint64(p.partial) <= nodes%layout.TileWidth
}
