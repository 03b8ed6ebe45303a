// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package tile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// The journal holds what is in the tree and perhaps not durable in a tile yet.
//
//	magic · length, checkpoint that it starts from
//	length, first index, root after · length, entry · length, entry …
//	length, first index, root after · …
//
// Lengths have four bytes, big-endian. A record is one batch. Only the last
// one can be torn, because each is durable before the next is begun; and
// nothing of a torn one was released.
const (
	journalName  = ".journal"
	journalMagic = "provost tile journal 1\n"
	recordHead   = 8 + hashSize
	maxRecord    = 1 << 28
)

// maxNote bounds a checkpoint with all its cosignatures, in bytes.
const maxNote = 1 << 16

// A journal is open for appending.
type journal struct {
	f    *os.File
	end  int64 // of the last whole record
	base []byte
}

// encodeRecord makes the record of a batch.
func encodeRecord(first uint64, g *growth, framed [][]byte) []byte {
	n := recordHead
	for _, e := range framed {
		n += 4 + len(e)
	}
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 4+n), uint32(n))
	b = binary.BigEndian.AppendUint64(b, first)
	b = append(b, g.root...)
	for _, e := range framed {
		b = binary.BigEndian.AppendUint32(b, uint32(len(e)))
		b = append(b, e...)
	}
	return b
}

// createJournal replaces the journal by one that starts from a checkpoint and
// has already these records. It is durable when it returns nil, and so is
// every name in the directory.
func createJournal(dir string, checkpoint, records []byte) error {
	b := binary.BigEndian.AppendUint32([]byte(journalMagic), uint32(len(checkpoint)))
	b = append(append(b, checkpoint...), records...)
	temp := filepath.Join(dir, tempName)
	if err := writeTemp(temp, b, true); err != nil {
		return err
	}
	if err := os.Rename(temp, filepath.Join(dir, journalName)); err != nil {
		return err
	}
	return syncPath(dir)
}

// openJournal opens the journal and reads the checkpoint that it starts from.
func openJournal(dir string) (*journal, error) {
	f, err := os.OpenFile(filepath.Join(dir, journalName), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	j := &journal{f: f}
	if err := j.readBase(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return j, nil
}

func (j *journal) readBase() error {
	head := make([]byte, len(journalMagic)+4)
	if _, err := io.ReadFull(j.f, head); err != nil || string(head[:len(journalMagic)]) != journalMagic {
		return fmt.Errorf("%w: %s: not a journal", ErrDamaged, j.f.Name())
	}
	n := binary.BigEndian.Uint32(head[len(journalMagic):])
	if n > maxNote {
		return fmt.Errorf("%w: %s: its checkpoint has more than %d bytes", ErrDamaged, j.f.Name(), maxNote)
	}
	j.base = make([]byte, n)
	if _, err := io.ReadFull(j.f, j.base); err != nil {
		return fmt.Errorf("%w: %s: ends within its checkpoint", ErrDamaged, j.f.Name())
	}
	j.end = int64(len(head)) + int64(n)
	return nil
}

// append appends a record. It is durable when it returns nil. When it fails,
// nothing was appended, or the next replay finds it, whole or torn.
func (j *journal) append(record []byte) error {
	_, err := j.f.WriteAt(record, j.end)
	if err == nil {
		err = j.f.Sync()
	}
	if err != nil {
		return errors.Join(err, j.f.Truncate(j.end))
	}
	j.end += int64(len(record))
	return nil
}

// replay reads what follows the last record and calls grow for each further
// one, which must take it or return an error. A torn one at the end it leaves
// alone: see [journal.cut]. What it read is durable when it returns nil.
func (j *journal) replay(grow func(r record) error) error {
	info, err := j.f.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	if size < j.end {
		return j.damaged("became shorter")
	}
	for j.end < size {
		var head [4]byte
		if size-j.end < 4 {
			break // torn
		}
		if _, err := j.f.ReadAt(head[:], j.end); err != nil {
			return err
		}
		n := int64(binary.BigEndian.Uint32(head[:]))
		if n == 0 {
			if err := j.checkZeros(size); err != nil {
				return err
			}
			break
		}
		next := j.end + 4 + n
		if next > size {
			break // torn
		}
		if n > maxRecord {
			return j.damaged(fmt.Sprintf("a record has more than %d bytes", maxRecord))
		}
		b := make([]byte, n)
		if _, err := j.f.ReadAt(b, j.end+4); err != nil {
			return err
		}
		r, err := decodeRecord(b)
		if err == nil {
			r.end = next
			err = grow(r)
		}
		if err != nil && next == size {
			break // torn, though its length is whole
		}
		if err != nil {
			return j.damaged(err.Error())
		}
		j.end = next
	}
	return j.f.Sync() // it may have been written by who was killed before it was synced
}

// checkZeros allows nothing but zeros from here on: the end of a file that a
// file system had grown when it lost power, and not written to yet.
func (j *journal) checkZeros(size int64) error {
	rest := make([]byte, min(size-j.end, maxRecord))
	if _, err := j.f.ReadAt(rest, j.end); err != nil {
		return err
	}
	if len(bytes.Trim(rest, "\x00")) > 0 {
		return j.damaged("there is no record, but something behind it")
	}
	return nil
}

func (j *journal) damaged(what string) error {
	return fmt.Errorf("%w: %s, at byte %d: %s", ErrDamaged, j.f.Name(), j.end, what)
}

// cut cuts off what follows the last whole record. It must not be called
// before it is known that nothing of that was released.
func (j *journal) cut() error {
	info, err := j.f.Stat()
	if err != nil || info.Size() == j.end {
		return err
	}
	return errors.Join(j.f.Truncate(j.end), j.f.Sync())
}

// A record is one batch.
type record struct {
	first  uint64
	root   []byte // of the tree after it
	framed [][]byte
	end    int64 // where it ends in the journal
}

func decodeRecord(b []byte) (r record, err error) {
	if len(b) <= recordHead {
		return r, errors.New("a record is too short")
	}
	r.first, r.root, b = binary.BigEndian.Uint64(b), b[8:recordHead], b[recordHead:]
	for len(b) > 0 {
		if len(b) < 4 {
			return r, errTorn
		}
		n := int64(binary.BigEndian.Uint32(b))
		if b = b[4:]; int64(len(b)) < n {
			return r, errTorn
		}
		r.framed, b = append(r.framed, b[:n:n]), b[n:]
	}
	return r, nil
}

// records are the bytes of the records from an offset.
func (j *journal) records(from int64) ([]byte, error) {
	b := make([]byte, j.end-from)
	_, err := j.f.ReadAt(b, from)
	return b, err
}

// current reports whether the journal's name still stands for the file that is
// open, and whether nobody wrote to it since.
func (j *journal) current(dir string) (same, unchanged bool, err error) {
	named, err := os.Stat(filepath.Join(dir, journalName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, false, nil
	}
	if err != nil {
		return false, false, err
	}
	open, err := j.f.Stat()
	if err != nil {
		return false, false, err
	}
	same = os.SameFile(named, open)
	return same, same && open.Size() == j.end, nil
}

func (j *journal) close() error {
	if j == nil {
		return nil
	}
	return j.f.Close()
}
