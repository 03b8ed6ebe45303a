// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"golang.org/x/term"
)

// A printer writes answers: aligned and coloured for a terminal, plain for a
// pipe, or JSON.
type printer struct {
	out    io.Writer
	json   bool
	colour bool
}

func newPrinter(out io.Writer, format string) printer {
	f, isFile := out.(*os.File)
	return printer{
		out:    out,
		json:   format == "json",
		colour: isFile && term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == "",
	}
}

// answer prints v as JSON, or calls text.
func (p printer) answer(v any, text func()) error {
	if !p.json {
		text()
		return nil
	}
	e := json.NewEncoder(p.out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

func (p printer) printf(format string, args ...any) { fmt.Fprintf(p.out, format, args...) }

// table prints rows of tab-separated cells, aligned.
func (p printer) table(rows ...string) {
	w := tabwriter.NewWriter(p.out, 0, 8, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(w, r)
	}
	_ = w.Flush()
}

// The colours of the terminal: for good, for bad, for what is only said.
const (
	green = "32"
	red   = "31"
	dim   = "2"
)

func (p printer) paint(colour, s string) string {
	if !p.colour {
		return s
	}
	return "\x1b[" + colour + "m" + s + "\x1b[0m"
}

// mark paints a verdict.
func (p printer) mark(verdict string) string {
	if verdict == "PASS" {
		return p.paint(green, verdict)
	}
	return p.paint(red, verdict)
}

// short is what fits at the end of a row; JSON has the whole.
func short(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

// safe keeps what others wrote from moving the terminal's cursor.
func safe(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if r < 0x20 || (r >= 0x7f && r < 0xa0) {
			return '�'
		}
		return r
	}, s)
}
