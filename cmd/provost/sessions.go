// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"time"

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

// Load returns a session that goes on for a while.
func (d sessionDir) Load(token string) (s client.Session, ok bool) {
	raw, err := readBounded(d.path(token), 64<<10)
	if err != nil || json.Unmarshal(raw, &s) != nil {
		return client.Session{}, false
	}
	return s, s.Token != "" && time.Until(s.ExpiresAt) > 10*time.Second
}

// Save keeps a session, and removes those that have ended.
func (d sessionDir) Save(token string, s client.Session) {
	if os.MkdirAll(string(d), 0o700) != nil {
		return
	}
	raw, err := json.Marshal(s)
	if err != nil {
		return
	}
	d.purge()
	f, err := os.CreateTemp(string(d), ".new-*") // 0600
	if err != nil {
		return
	}
	defer os.Remove(f.Name())
	_, err = f.Write(raw)
	if closed := f.Close(); err == nil && closed == nil {
		_ = os.Rename(f.Name(), d.path(token))
	}
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
