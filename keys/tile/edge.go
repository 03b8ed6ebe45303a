// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package tile

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api/layout"
)

var ranges = &compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}

// An edge is the right edge of a tree: all that it takes to append, and to
// prove what was appended. It touches nothing outside, and what it shows is
// never changed: appending makes another, which shares its bytes.
type edge struct {
	layout Layout
	size   uint64
	root   []byte
	peaks  [][]byte // roots of the perfect subtrees, left to right
	tiles  [][]byte // for each level, the tile that is not full yet
	bundle []byte   // the bundle that is not full yet
}

// A file is a tile or a bundle to be written.
type file struct {
	place
	data []byte
}

func newEdge(l Layout) *edge {
	return &edge{layout: l, root: rfc6962.DefaultHasher.EmptyRoot()}
}

// A growth is what appending did.
type growth struct {
	*edge
	files []file
	nodes map[compact.NodeID][]byte // what inclusion proofs of the appended may need
}

// append appends framed entries.
func (e *edge) append(framed [][]byte) (*growth, error) {
	tree, err := ranges.NewRange(0, e.size, slices.Clone(e.peaks))
	if err != nil {
		return nil, fmt.Errorf("%w: right edge: %w", ErrDamaged, err)
	}
	g := &growth{
		edge:  &edge{layout: e.layout, size: e.size, tiles: slices.Clone(e.tiles), bundle: e.bundle},
		nodes: make(map[compact.NodeID][]byte, 2*len(framed)+len(e.peaks)),
	}
	for i, id := range compact.RangeNodes(0, e.size, nil) {
		g.nodes[id] = e.peaks[i]
	}
	touched := 0 // levels with new nodes
	for _, f := range framed {
		_, prefix, leaf, rest, err := e.layout.next(f)
		if err != nil || len(rest) != 0 {
			return nil, fmt.Errorf("entry %d is not one of this log's layout: %w", g.size, cmpErr(err, errTorn))
		}
		err = tree.Append(leafHash(prefix, leaf), func(id compact.NodeID, hash []byte) {
			g.nodes[id] = hash
			if id.Level%layout.TileHeight == 0 {
				level := int(id.Level / layout.TileHeight)
				touched = max(touched, level+1)
				g.addNode(level, id.Index, hash)
			}
		})
		if err != nil {
			return nil, fmt.Errorf("%w: right edge: %w", ErrDamaged, err)
		}
		g.bundle = append(g.bundle, f...)
		g.size++
		if g.size%layout.EntryBundleWidth == 0 {
			g.files = append(g.files, file{place{bundle: true, index: g.size/layout.EntryBundleWidth - 1}, g.bundle})
			g.bundle = nil
		}
	}
	if n := g.size % layout.EntryBundleWidth; n > 0 {
		g.files = append(g.files, file{place{bundle: true, index: g.size / layout.EntryBundleWidth, partial: uint8(n)}, g.bundle})
	}
	for level := range touched {
		if p := partial(uint64(level), g.size); p.partial > 0 {
			g.files = append(g.files, file{p, g.tiles[level]})
		}
	}
	g.peaks = tree.Hashes()
	if g.root, err = tree.GetRootHash(nil); err != nil {
		return nil, fmt.Errorf("%w: right edge: %w", ErrDamaged, err)
	}
	return g, nil
}

func cmpErr(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

func (g *growth) addNode(level int, index uint64, hash []byte) {
	for len(g.tiles) <= level {
		g.tiles = append(g.tiles, nil)
	}
	g.tiles[level] = append(g.tiles[level], hash...)
	if index%layout.TileWidth == layout.TileWidth-1 {
		g.files = append(g.files, file{place{level: uint64(level), index: index / layout.TileWidth}, g.tiles[level]})
		g.tiles[level] = nil
	}
}

// inclusion is the proof that the tree includes an entry that was appended.
func (g *growth) inclusion(index uint64) ([][]byte, error) {
	nodes, err := proof.Inclusion(index, g.size)
	if err != nil {
		return nil, err
	}
	hashes := make([][]byte, len(nodes.IDs))
	for i, id := range nodes.IDs {
		if hashes[i] = g.nodes[id]; hashes[i] == nil {
			return nil, fmt.Errorf("proof of entry %d: node %d of level %d is not there", index, id.Index, id.Level)
		}
	}
	return nodes.Rehash(hashes, rfc6962.DefaultHasher.HashChildren)
}

// partial is the tile of a level that is not full in a tree of that size; its
// width is 0 if there is none.
func partial(level, size uint64) place {
	nodes := size >> (level * layout.TileHeight)
	return place{level: level, index: nodes / layout.TileWidth, partial: uint8(nodes % layout.TileWidth)}
}

// loadEdge reads the edge of a tree of that size, and holds it against the
// root: what it returns is what was signed.
func loadEdge(l Layout, size uint64, root []byte, read func(place) ([]byte, error)) (*edge, error) {
	e := &edge{layout: l, size: size, root: root}
	for level := uint64(0); size>>(level*layout.TileHeight) > 0; level++ {
		var tile []byte
		if p := partial(level, size); p.partial > 0 {
			var err error
			if tile, err = read(p); err != nil {
				return nil, err
			}
		}
		e.tiles = append(e.tiles, tile)
	}
	for _, id := range compact.RangeNodes(0, size, nil) {
		// A peak lies in the tile that is not full yet, by the very sizes.
		level, _, nodeLevel, index := layout.NodeCoordsToTileAddress(uint64(id.Level), id.Index)
		first, n := index<<nodeLevel, uint64(1)<<nodeLevel
		tile := e.tiles[level]
		if end := (first + n) * hashSize; uint64(len(tile)) < end {
			return nil, fmt.Errorf("%w: tile of level %d is too short", ErrDamaged, level)
		}
		sub := ranges.NewEmptyRange(0)
		for i := first; i < first+n; i++ {
			if err := sub.Append(tile[i*hashSize:(i+1)*hashSize:(i+1)*hashSize], nil); err != nil {
				return nil, err
			}
		}
		peak, err := sub.GetRootHash(nil)
		if err != nil {
			return nil, err
		}
		e.peaks = append(e.peaks, peak)
	}
	tree, err := ranges.NewRange(0, size, e.peaks)
	if err != nil {
		return nil, err
	}
	got, err := tree.GetRootHash(nil)
	if err != nil {
		return nil, err
	}
	if size == 0 {
		got = rfc6962.DefaultHasher.EmptyRoot()
	}
	if !bytes.Equal(got, root) {
		return nil, fmt.Errorf("%w: the tiles of the right edge hash to root %x, the checkpoint of size %d says %x", ErrDamaged, got, size, root)
	}
	if n := size % layout.EntryBundleWidth; n > 0 {
		p := place{bundle: true, index: size / layout.EntryBundleWidth, partial: uint8(n)}
		if e.bundle, err = read(p); err != nil {
			return nil, err
		}
		_, hashes, _, err := l.split(e.bundle, int(n))
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, l.path(p), err)
		}
		if !bytes.Equal(bytes.Join(hashes, nil), e.tiles[0]) {
			return nil, fmt.Errorf("%w: %s: the entries are not those of the tile", ErrDamaged, l.path(p))
		}
	}
	return e, nil
}
