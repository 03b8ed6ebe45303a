// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"provost/attest"
	"provost/keys/keystest"
)

const devHost = "provost.localhost" // the name of the development service's log

// A loggedDev is a development service, and the bundles that it acknowledged.
type loggedDev struct {
	*daemon
	data string
	jobs *jobs
	got  []received
}

func startLogged(t *testing.T) *loggedDev {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real servers")
	}
	d := &loggedDev{data: t.TempDir()}
	d.start(t)
	return d
}

func (d *loggedDev) start(t *testing.T) {
	t.Helper()
	d.daemon = startDev(t, d.data, nil)
	d.jobs = newJobs(t, d.daemon, d.data)
}

// sign asks once, without trying again, and returns status and Retry-After.
func (d *loggedDev) sign(t *testing.T) (status int, retryAfter string, body []byte) {
	t.Helper()
	artifact, _ := newArtifact()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ask := fmt.Sprintf(`{"subjects":[{"name":"app","digest":{"sha256":%q}}]}`, artifact.Hex())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url+"/v1/attestations/provenance", strings.NewReader(ask))
	ok(t, err)
	secret, err := d.jobs.secret(ctx)
	ok(t, err)
	req.Header.Set("Authorization", "Bearer "+secret)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("the service went away: %v\n%s", err, failures(d.log))
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	ok(t, err)
	if resp.StatusCode == http.StatusCreated {
		a, err := decodeAttestation(body)
		ok(t, err)
		d.got = append(d.got, received{artifact, a})
	}
	return resp.StatusCode, resp.Header.Get("Retry-After"), body
}

func (d *loggedDev) mustSign(t *testing.T, n int) {
	t.Helper()
	for range n {
		if status, _, body := d.sign(t); status != http.StatusCreated {
			t.Fatalf("%d %s\n%s", status, body, failures(d.log))
		}
	}
}

func (d *loggedDev) ready(t *testing.T) int {
	t.Helper()
	resp, err := http.Get(d.url + "/readyz")
	ok(t, err)
	resp.Body.Close()
	return resp.StatusCode
}

// check: all that was acknowledged is there, believed and in the log, and the
// service has no other attestation.
func (d *loggedDev) check(t *testing.T, refused int) {
	t.Helper()
	checkReceived(t, d.daemon, d.data, d.got)
	checkLogged(t, d.daemon, d.data, devHost, d.got)
	listed, err := d.client(adminToken(t, d.data)).Intents(t.Context())
	ok(t, err)
	if len(listed.Intents) != refused {
		t.Errorf("%d requests were refused, and %d intents have no bundle", refused, len(listed.Intents))
	}
}

func (d *loggedDev) path(name string) string { return filepath.Join(d.data, "log", name) }

// mustNotStart: the service ends at once, and says these words.
func (d *loggedDev) mustNotStart(t *testing.T, words ...string) {
	t.Helper()
	dir, err := programs()
	ok(t, err)
	d.mustFail(t, []string{filepath.Join(dir, "provostd"), "dev", "--data", d.data, "--listen", "127.0.0.1:0"}, words...)
}

// mustFail is mustNotStart for a command that becomes provostd.
func (d *loggedDev) mustFail(t *testing.T, command []string, words ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, command[0], command[1:]...)
	c.Env = []string{"HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH")}
	out, err := c.CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Fatalf("started: %v\n%s", err, out)
	}
	for _, w := range words {
		if !strings.Contains(string(out), w) {
			t.Errorf("it does not say %q:\n%s", w, out)
		}
	}
}

// needMounts skips a test where nobody can mount.
func needMounts(t *testing.T) {
	t.Helper()
	for _, tool := range [][]string{{"unshare", "-rm", "true"}, {"nsenter", "--version"}} {
		if out, err := exec.Command(tool[0], tool[1:]...).CombinedOutput(); err != nil {
			t.Skipf("NOT TESTED: this needs a mount namespace, and util-linux: %v %s", err, out)
		}
	}
}

// On a disk that is mounted read-only the service does not start, and with it
// mounted right nothing is missing.
func TestStartWithAReadOnlyLog(t *testing.T) {
	d := startLogged(t)
	needMounts(t)
	d.mustSign(t, 3)
	d.stop()
	dir, err := programs()
	ok(t, err)
	const script = `mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && exec "$2" dev --data "$3" --listen 127.0.0.1:0`
	d.mustFail(t, []string{"unshare", "-rm", "sh", "-c", script, "sh", d.path(""), filepath.Join(dir, "provostd"), d.data},
		"cannot be written", "mount its disk read-write")
	d.start(t)
	d.mustSign(t, 3)
	d.check(t, 0)
	d.stop()
}

// The directory of the log gets full, or read-only, while the service runs:
// requests are answered with 503, nothing is released, /readyz tells, and when
// it is mended the service goes on by itself.
func TestLogDirectoryFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real servers")
	}
	needMounts(t)
	dir, err := programs()
	ok(t, err)
	d := &loggedDev{data: t.TempDir()}
	log := filepath.Join(d.data, "log")
	ok(t, os.Mkdir(log, 0o700))
	const script = `mount -t tmpfs -o size=8m tmpfs "$1" && exec "$2" dev --data "$3" --listen 127.0.0.1:0`
	d.daemon = startCommand(t, nil, exec.Command("unshare", "-rm", "sh", "-c", script, "sh", log, filepath.Join(dir, "provostd"), d.data))
	d.jobs = newJobs(t, d.daemon, d.data)
	inside := func(command string) {
		t.Helper()
		c := exec.Command("nsenter", "--preserve-credentials", "-U", "-m", "-t", fmt.Sprint(d.cmd.Process.Pid), "sh", "-ec", command, "sh", filepath.Join(log, devHost))
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v %s", command, err, out)
		}
	}
	// The service's disk is reached through /proc.
	seen := fmt.Sprintf("/proc/%d/root%s", d.cmd.Process.Pid, log)
	filler := filepath.Join(seen, "filler")
	d.mustSign(t, 20)
	refused := 0
	for _, fault := range []struct {
		name        string
		begin, mend func()
	}{
		{"full", func() {
			if err := fill(filler); !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("the disk did not fill: %v", err)
			}
		}, func() { ok(t, os.Remove(filler)) }},
		// What is open for writing stays so, as for a process that runs: all
		// but the journal.
		{"read-only", func() { inside(`mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"`) }, func() { inside(`umount "$1"`) }},
	} {
		t.Run(fault.name, func(t *testing.T) {
			fault.begin()
			for range 200 { // room that is left may serve a few
				status, retry, body := d.sign(t)
				if status == http.StatusCreated {
					continue
				}
				if refused++; status != http.StatusServiceUnavailable || retry == "" {
					t.Fatalf("%d, Retry-After %q: want 503 with Retry-After\n%s", status, retry, body)
				}
				for _, leak := range []string{log, "tile", "checkpoint", "bundle", "read-only", "space"} {
					if strings.Contains(string(body), leak) {
						t.Errorf("the answer says %q: %s", leak, body)
					}
				}
				if refused%5 == 0 {
					break
				}
			}
			if refused == 0 || refused%5 != 0 {
				t.Fatalf("%d refused", refused)
			}
			if err := keystest.Poll(10*time.Second, func() bool { return d.ready(t) == http.StatusServiceUnavailable }); err != nil {
				t.Errorf("/readyz does not tell: %v", err)
			}
			fault.mend()
			if err := keystest.Poll(30*time.Second, func() bool { return d.ready(t) == http.StatusOK }); err != nil {
				t.Fatalf("is not ready again: %v\n%s", err, failures(d.log))
			}
			d.mustSign(t, 20)
			// The log, with its own eyes, is the one that is served.
			listed, err := d.client(adminToken(t, d.data)).Intents(t.Context())
			ok(t, err)
			if len(listed.Intents) != refused {
				t.Errorf("%d requests were refused, and %d intents have no bundle", refused, len(listed.Intents))
			}
		})
	}
	// To others the log is where the service has it.
	outside := *d
	outside.data = fmt.Sprintf("/proc/%d/root%s", d.cmd.Process.Pid, d.data)
	outside.check(t, refused)
	d.stop()
}

// size is how many entries the log has, by its checkpoint: the service signs
// for itself, too (builders, heads of the audit log).
func (d *loggedDev) size(t *testing.T) int {
	t.Helper()
	raw, err := os.ReadFile(d.path(devHost + "/checkpoint"))
	ok(t, err)
	lines := strings.Split(string(raw), "\n")
	n, err := strconv.Atoi(lines[1])
	ok(t, err)
	return n
}

// A log that is damaged while the service is stopped is not continued, and the
// service says what to do. What a crash may tear it mends.
func TestStartWithATornTile(t *testing.T) {
	d := startLogged(t)
	d.mustSign(t, 3)
	d.stop() // all is flushed: the journal cannot mend it
	last := fmt.Sprint(d.size(t))
	for _, name := range []string{devHost + "/tile/0/000.p/" + last, devHost + "/tile/entries/000.p/" + last, "ct/tile/0/000.p/3"} {
		whole, err := os.ReadFile(d.path(name))
		ok(t, err)
		ok(t, os.Truncate(d.path(name), int64(len(whole)/2)))
		d.mustNotStart(t, "torn", "restore")
		ok(t, os.WriteFile(d.path(name), whole, 0o644))
	}
	d.start(t)
	d.mustSign(t, 3)
	d.kill()
	last = fmt.Sprint(d.size(t))
	for _, name := range []string{"/tile/0/000.p/", "/tile/entries/000.p/"} {
		ok(t, os.Truncate(d.path(devHost+name+last), 7))
	}
	d.start(t)
	d.mustSign(t, 3)
	d.check(t, 0)
	d.stop()
}

// An older copy of the log, or of its checkpoint, was put back: going on would
// fork the log, so the service does not start, and says what to do.
func TestStartWithAnOlderLog(t *testing.T) {
	d := startLogged(t)
	d.mustSign(t, 3)
	d.stop()
	copied := func(name string) {
		t.Helper()
		ok(t, os.CopyFS(filepath.Join(d.data, name), os.DirFS(filepath.Join(d.data, "log"))))
	}
	swap := func(name string) {
		t.Helper()
		ok(t, os.RemoveAll(d.path("")))
		ok(t, os.CopyFS(d.path(""), os.DirFS(filepath.Join(d.data, name))))
	}
	copied("older")
	d.start(t)
	d.mustSign(t, 3)
	d.stop()
	copied("newer")

	swap("older")
	d.mustNotStart(t, "an older copy of it was put back", "restore a copy that is newer than the database")
	swap("newer")
	old, err := os.ReadFile(filepath.Join(d.data, "older", devHost, "checkpoint"))
	ok(t, err)
	ok(t, os.WriteFile(d.path(devHost+"/checkpoint"), old, 0o644))
	d.mustNotStart(t, "a backup was put back", "Put the newest copy of the whole directory back")
	swap("newer")
	d.start(t)
	d.mustSign(t, 3)
	d.check(t, 0)
	d.stop()
}

// The log of certificates has every leaf. An older copy of it lacks one that
// signs: it is not continued either.
func TestStartWithAnOlderLogOfCertificates(t *testing.T) {
	d := startLogged(t)
	d.mustSign(t, 1)
	d.stop()
	ok(t, os.CopyFS(filepath.Join(d.data, "older"), os.DirFS(d.path("ct"))))
	d.start(t)
	if _, err := d.client(adminToken(t, d.data)).Rotate(t.Context(), attest.PowerProvenance); err != nil {
		t.Fatal(err)
	}
	d.mustSign(t, 1)
	d.stop()
	ok(t, os.RemoveAll(d.path("ct")))
	ok(t, os.Rename(filepath.Join(d.data, "older"), d.path("ct")))
	d.mustNotStart(t, "log of certificates", "restore")
}

// A database that is older than the log: the service starts, and tells every
// entry that it does not know, as one that no intent explains.
func TestStartWithAnOlderDatabase(t *testing.T) {
	d := startLogged(t)
	d.mustSign(t, 3)
	d.stop()
	file := filepath.Join(d.data, "provost.db")
	old, err := os.ReadFile(file)
	ok(t, err)
	before, size := d.got, d.size(t)
	d.start(t)
	d.mustSign(t, 4)
	lost := d.got[len(before):]
	d.stop()
	more := d.size(t) - size
	for _, name := range []string{file + "-wal", file + "-shm"} {
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	ok(t, os.WriteFile(file, old, 0o600))

	d.start(t)
	told := strings.Count(d.log.String(), "log entry that no intent explains")
	if told != more || more < len(lost) {
		t.Errorf("%d entries were told, want %d\n%s", told, more, failures(d.log))
	}
	c := d.client(adminToken(t, d.data))
	for _, r := range lost {
		if _, err := c.Attestation(t.Context(), r.ID); !errors.Is(err, attest.ErrNotFound) {
			t.Errorf("lost %s: %v", r.ID, err)
		}
	}
	checkLogged(t, d.daemon, d.data, devHost, lost) // they verify wherever they are: the log still has them
	d.got = before
	d.mustSign(t, 2)
	d.check(t, 0)
	d.stop()

	// They are recorded: the next start has nothing to tell.
	d.start(t)
	if strings.Contains(d.log.String(), "log entry") {
		t.Errorf("told again:\n%s", failures(d.log))
	}
	d.stop()
}
