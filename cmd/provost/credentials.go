// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/rogpeppe/go-internal/lockedfile"

	"provost/api/client"
	"provost/attest"
)

// A session is what a login left on this machine. It holds secrets.
type session struct {
	// Login is what the service said at that time. It is not asked again:
	// whoever answers for the service later does not choose where the refresh
	// token goes.
	Login   client.Login `json:"login"`
	Subject string       `json:"subject"`
	Token   string       `json:"token"`
	// Expires is until when the service accepts the token; zero when nobody
	// said.
	Expires      time.Time `json:"expires,omitzero"`
	RefreshToken string    `json:"refreshToken,omitempty"`
}

// expirySkew is how long before its end a token is no longer used.
const expirySkew = 30 * time.Second

func (s session) expired() bool {
	return !s.Expires.IsZero() && time.Now().Add(expirySkew).After(s.Expires)
}

// credentials are the sessions of this user, by the URL of the service. A token
// is used for the very URL it was got for, and for no other.
type credentials struct {
	Sessions map[string]session `json:"sessions"`
}

// maxCredentials is the largest credentials file, in bytes.
const maxCredentials = 1 << 20

// credentialsFile is where the sessions are kept.
func credentialsFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", hint(fmt.Errorf("where to keep a login: %w", err), "set HOME or XDG_CONFIG_HOME")
	}
	return filepath.Join(dir, "provost", "credentials.json"), nil
}

// readCredentials reads the sessions; a file that is not there has none. One
// that others can read is refused: what is in it may be known to them.
func readCredentials(path string) (credentials, error) {
	c := credentials{Sessions: map[string]session{}}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("read login: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 && runtime.GOOS != "windows" {
		return c, hint(fmt.Errorf("read login: %s has mode %04o: others could have read the token", path, mode), "remove it, and log in again: provost login")
	}
	raw, err := readBounded(path, maxCredentials)
	if err != nil {
		return c, fmt.Errorf("read login: %w", err)
	}
	if err := attest.DecodeOpenJSON(raw, &c); err != nil {
		return c, hint(fmt.Errorf("read login: %s: it is damaged", path), "remove it, and log in again: provost login") // its text is secret
	}
	if c.Sessions == nil {
		c.Sessions = map[string]session{}
	}
	return c, nil
}

// changeCredentials reads the sessions, has them changed, and writes them,
// while no other process does. With an error nothing is written.
func changeCredentials(path string, change func(*credentials) error) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("keep login: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("keep login: %w", err)
	}
	unlock, err := lockedfile.MutexAt(path + ".lock").Lock()
	if err != nil {
		return fmt.Errorf("keep login: %w", err)
	}
	defer unlock()
	c, err := readCredentials(path)
	if err != nil {
		return err
	}
	if err := change(&c); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	if err := replaceFile(path, append(raw, '\n')); err != nil {
		return fmt.Errorf("keep login: %w", err)
	}
	return nil
}

// replaceFile writes a file that is the user's alone (mode 0600), whole or not at
// all.
func replaceFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone when all went well
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}

// otherUser is the URL of another service whose session is of the same client.
// A service that names the client of another would be sent tokens which that
// other accepts.
func (c credentials) otherUser(service string, l client.Login) (string, bool) {
	for url, s := range c.Sessions {
		if url != service && s.Login.Issuer == l.Issuer && s.Login.ClientID == l.ClientID {
			return url, true
		}
	}
	return "", false
}

// sessionToken is the token of the login at a service, renewed if it has ended.
// It reports false where there is no login.
func sessionToken(ctx context.Context, service string) (token string, found bool, err error) {
	path, err := credentialsFile()
	if err != nil { // no place to keep one, so none is kept
		return "", false, nil
	}
	c, err := readCredentials(path)
	if err != nil {
		return "", false, err
	}
	s, ok := c.Sessions[service]
	if !ok {
		return "", false, nil
	}
	if err := checkConfidential(service); err != nil {
		return "", false, err
	}
	if !s.expired() {
		return s.Token, true, nil
	}
	if s.RefreshToken == "" {
		return "", false, hint(fmt.Errorf("the login at %s has expired", service), "provost login --url "+service)
	}
	// A refresh token is often good once: one process uses it, the others wait
	// and find what it got.
	err = changeCredentials(path, func(c *credentials) error {
		if s, ok = c.Sessions[service]; !ok {
			return hint(fmt.Errorf("the login at %s was ended", service), "provost login --url "+service)
		}
		if !s.expired() {
			return nil
		}
		if s, err = renew(ctx, s); err != nil {
			return hint(fmt.Errorf("renew the login at %s: %w", service, err), "log in again: provost login --url "+service)
		}
		c.Sessions[service] = s
		return nil
	})
	return s.Token, err == nil, err
}
