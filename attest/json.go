// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// CheckJSON reports whether data is one JSON value that every parser reads the
// same way: valid UTF-8, no object with the same key twice, nested no deeper
// than [MaxDepth], nothing after it. Parsers differ on each of these, and what
// one reads and another does not is a way past a gate. The error is an
// [ErrInvalid] or a [LimitError].
func CheckJSON(data []byte) error {
	if depth(data) > MaxDepth {
		return &LimitError{What: "JSON nesting", Limit: MaxDepth, Unit: "levels"}
	}
	if !jsontext.Value(data).IsValid() {
		// IsValid says no more than that; decoding again finds the words.
		var v jsontext.Value
		if err := json.Unmarshal(data, &v); err != nil {
			return fmt.Errorf("%w: JSON: %w", ErrInvalid, err)
		}
		return fmt.Errorf("%w: JSON", ErrInvalid)
	}
	return nil
}

// DecodeJSON reads data into v. Beyond [CheckJSON] it matches names by exact
// case, which encoding/json does not, and refuses members that v does not
// have.
func DecodeJSON(data []byte, v any) error {
	return decode(data, v, json.RejectUnknownMembers(true))
}

// DecodeOpenJSON is [DecodeJSON] but ignores members that v does not have, as
// in-toto asks of consumers.
func DecodeOpenJSON(data []byte, v any) error { return decode(data, v) }

func decode(data []byte, v any, opts ...json.Options) error {
	if err := CheckJSON(data); err != nil {
		return err
	}
	if err := json.Unmarshal(data, v, opts...); err != nil {
		return fmt.Errorf("%w: JSON: %w", ErrInvalid, err)
	}
	return nil
}

// encodeJSON writes v with sorted map keys and without white space, so that
// the same value always gives the same bytes.
func encodeJSON(v any) ([]byte, error) {
	return json.Marshal(v, json.Deterministic(true))
}

// depth counts the deepest nesting of brackets outside strings. It runs before
// any parser does, so that a parser never sees a deep document.
func depth(data []byte) int {
	deepest, now, inString := 0, 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}
