// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/lockedfile"

	"provost/api/client"
)

// A sessionDir keeps, in a file each, the sessions that CI tokens were
// exchanged for, so that the commands of one job share one: a job's token is
// accepted once. The files are of their owner alone and name the token by its
// hash. Where there is no such directory sessions live as long as a command.
type sessionDir string

// openSessions is the sessions of this user.
func openSessions() client.Sessions {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil
	}
	return sessionDir(filepath.Join(cache, "provost", "sessions"))
}

func (d sessionDir) path(token string) string {
	sum := sha256.Sum256([]byte(token))
	return filepath.Join(string(d), hex.EncodeToString(sum[:])+".json")
}

// Load returns a session that goes on for a while. A file that is no session, or
// leads out of the directory, is none.
func (d sessionDir) Load(token string) (s client.Session, ok bool) {
	if os.Chmod(string(d), 0o700) != nil { // not there, or another's
		return client.Session{}, false
	}
	dir, err := os.OpenRoot(string(d))
	if err != nil {
		return client.Session{}, false
	}
	defer dir.Close()
	f, err := dir.Open(filepath.Base(d.path(token)))
	if err != nil {
		return client.Session{}, false
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxSession))
	if err != nil || json.Unmarshal(raw, &s) != nil {
		return client.Session{}, false
	}
	if secret, err := oneToken([]byte(s.Token)); err != nil || secret != s.Token {
		return client.Session{}, false
	}
	return s, time.Until(s.ExpiresAt) > 10*time.Second
}

// maxSession bounds a session's file, in bytes.
const maxSession = 64 << 10

// Lock waits until no other command of this user exchanges a token. Where that
// cannot be told, nobody is waited for.
func (d sessionDir) Lock() (unlock func()) {
	if !d.own() {
		return func() {}
	}
	unlock, err := lockedfile.MutexAt(filepath.Join(string(d), "lock")).Lock()
	if err != nil {
		return func() {}
	}
	return unlock
}

// own makes the directory, and reports whether it is this user's alone.
func (d sessionDir) own() bool {
	return os.MkdirAll(string(d), 0o700) == nil && os.Chmod(string(d), 0o700) == nil
}

// Save keeps a session, and removes those that have ended.
func (d sessionDir) Save(token string, s client.Session) {
	if !d.own() {
		return
	}
	raw, err := json.Marshal(s)
	if err != nil {
		return
	}
	d.purge()
	_ = replaceFile(d.path(token), raw) // it saves an exchange, no more
}

// Drop forgets a session.
func (d sessionDir) Drop(token string) { _ = os.Remove(d.path(token)) }

func (d sessionDir) purge() {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return
	}
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && strings.HasSuffix(e.Name(), ".json") && time.Since(info.ModTime()) > time.Hour {
			_ = os.Remove(filepath.Join(string(d), e.Name()))
		}
	}
}
