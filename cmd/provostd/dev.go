// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"provost/api"
	"provost/api/client"
	"provost/attest"
	"provost/verify/policy"
)

const (
	defaultData = "provost-dev"
	// devService is the identity under which the development service signs.
	// It stays the same whatever port it listens on, so that what it signed
	// yesterday verifies today.
	devService = "https://provost.localhost"
	// devAdminLifetime is how long the administrator's token in cli.env is
	// good; a restart writes a new one.
	devAdminLifetime = 7 * 24 * time.Hour
)

func devCommand() *cobra.Command {
	var d dev
	c := &cobra.Command{
		Use:   "dev",
		Short: "Run the whole service in one process, for development",
		Long: `Run the whole service in one process, for development: SQLite, keys in files,
its own CA and timestamp authority, and an OIDC issuer that gives a token to
whoever can read the data directory (provostd dev-token).

It prints one line "ready URL" when it answers, and writes DIR/cli.env with the
variables that the command line needs. It knows the environments dev, staging
and prod. People log in (provost login) as admin, approver or reader, with the
password in DIR/login.password.

With --keys vault the keys are in the Vault of VAULT_ADDR, under the token in
VAULT_TOKEN, in the transit engine.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return d.run(c.Context()) },
	}
	f := c.Flags()
	f.StringVar(&d.data, "data", defaultData, "`DIR` for everything that is kept")
	f.StringVar(&d.listen, "listen", "127.0.0.1:8080", "loopback `ADDRESS` to listen on; port 0 takes a free one")
	f.StringVar(&d.keys, "keys", "file", "where the keys are: file or vault")
	f.BoolVar(&d.log, "log", true, "keep a transparency log; without it other clients need flags")
	return c
}

type dev struct {
	data, listen, keys string
	log                bool
}

func (d dev) run(ctx context.Context) error {
	if d.keys != "file" && d.keys != "vault" {
		return usageError{fmt.Errorf("--keys %q: want file or vault", d.keys)}
	}
	if d.keys == "vault" && (os.Getenv("VAULT_ADDR") == "" || os.Getenv("VAULT_TOKEN") == "") {
		return usageError{errors.New("--keys vault needs VAULT_ADDR and VAULT_TOKEN in the environment")}
	}
	data, err := filepath.Abs(d.data)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	if host, _, err := net.SplitHostPort(d.listen); err != nil || !client.Loopback(host) {
		return usageError{hint(fmt.Errorf("--listen %q: the development service is for this machine alone", d.listen), "--listen 127.0.0.1:8080")}
	}
	unlock, err := lockDirectory(data)
	if err != nil {
		return err
	}
	defer unlock()
	// Listen first: the issuer's URL and the token's audience name the port.
	listener, err := net.Listen("tcp", d.listen)
	if err != nil {
		return hint(err, "choose another address: --listen 127.0.0.1:0 takes a free port")
	}
	defer listener.Close()
	base := "http://" + listener.Addr().String()
	issuer, err := openDevIssuer(data, base)
	if err != nil {
		return err
	}
	recipient, err := devIdentity(filepath.Join(data, "keyring.key"))
	if err != nil {
		return err
	}
	config := d.config(data, listener.Addr().String(), issuer)
	config.Keys.OfflineRootRecipient = recipient
	config.defaults()
	if err := config.validate(); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "provostd: THIS IS FOR DEVELOPMENT: its keys and its token issuer belong to whoever can read "+data)
	if err := initialise(ctx, config); err != nil {
		return err
	}
	s, err := openService(ctx, config)
	if err != nil {
		return err
	}
	defer s.close()
	if err := devBuilders(ctx, s.builders, issuer); err != nil {
		return err
	}
	if err := devTUF(ctx, config, s, data); err != nil {
		return err
	}
	s.handle("/dev/issuer/", issuer)
	login, err := openDevLogin(data, issuer)
	if err != nil {
		return err
	}
	s.handle("/dev/issuer/"+devPeople+"/", login)
	if err := d.writeEnvironment(data, base, issuer); err != nil {
		return err
	}
	return s.serve(ctx, listener, func() { fmt.Println("ready " + base) })
}

// devBuilders registers the development builders, as the administrator would,
// but for those that somebody has retired: they stay so.
func devBuilders(ctx context.Context, registry *api.Registrar, issuer *devIssuer) error {
	admin := attest.Caller{Issuer: issuer.URL(devPeople), Subject: "admin", Grants: attest.Grants}
	for _, b := range issuer.builders() {
		rows, revision, err := registry.Builders(ctx)
		if err != nil {
			return err
		}
		same := slices.ContainsFunc(rows, func(r attest.Builder) bool {
			return r.State == attest.BuilderActive && r.Name == b.Name && r.Issuer == b.Issuer && r.Condition == b.Condition && r.Level == b.Level && r.Repository == b.Repository
		})
		last := attest.Builder{} // of that name; rows are in the order of their revisions
		for _, r := range rows {
			if r.Name == b.Name {
				last = r
			}
		}
		if same || last.State == attest.BuilderRetired {
			continue
		}
		if b, err = b.Propose(nil, admin, time.Now()); err == nil {
			_, err = registry.AppendBuilder(ctx, b, revision)
		}
		if err != nil {
			return fmt.Errorf("register builder %s: %w", b.Name, err)
		}
	}
	return nil
}

// lockDirectory makes sure that one development service runs on a directory: a
// second one would take over its issuer and its cli.env. The lock ends with
// the process.
func lockDirectory(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, hint(fmt.Errorf("%s is in use by another provostd dev", dir), "stop that one, or choose another directory with --data")
	}
	return func() { f.Close() }, nil
}

// config is the configuration of the development service. It differs from a
// real one in nothing but its values.
func (d dev) config(data, listen string, issuer *devIssuer) Config {
	people := api.Issuer{URL: issuer.URL(devPeople), Audience: issuer.Audience, Algorithms: []string{"ES256"}, MaxAge: devAdminLifetime, Provider: "oidc"}
	anywhere := []policy.Source{{Repository: "https://github.com/*/*", Refs: []string{"**"}}}
	released := []policy.Source{{Repository: "https://github.com/*/*", Refs: []string{"refs/heads/main", "refs/tags/**"}}}
	hosted := policy.Builder{ID: devService + "/builders/dev", Level: 2}
	c := Config{
		Service: devService, Listen: listen, Database: filepath.Join(data, "provost.db"),
		Keys:    Keys{OfflineRoot: data, RootCertificate: filepath.Join(data, "root.pem")},
		TUF:     &TUF{Directory: filepath.Join(data, "tuf")},
		Issuers: []api.Issuer{people},
		Login:   devLoginConfig(issuer),
		Access:  devAccess(issuer),
		Environments: map[string]policy.Environment{
			"dev":     {Builders: devBuilderPolicy(), Sources: append(anywhere, policy.Source{Repository: "https://gitlab.com/*/*", Refs: []string{"**"}}), SBOM: policy.SBOMOptional},
			"staging": {Builders: []policy.Builder{hosted}, Sources: anywhere, SBOM: policy.SBOMOptional},
			"prod":    {Builders: []policy.Builder{hosted}, Sources: released, SBOM: policy.SBOMRequired},
		},
	}
	for _, name := range devProviderNames() {
		accepted, rule := issuer.access(name)
		c.Issuers, c.Access = append(c.Issuers, accepted), append(c.Access, rule)
	}
	if d.log {
		c.Log = &Log{Directory: filepath.Join(data, "log")}
	}
	if d.keys == "vault" {
		c.Keys.Vault = &VaultKeys{Address: os.Getenv("VAULT_ADDR"), TokenEnv: "VAULT_TOKEN"}
	} else {
		c.Keys.File = &FileKeys{Directory: filepath.Join(data, "keys"), IdentityFile: filepath.Join(data, "keyring.key")}
	}
	return c
}

// writeEnvironment writes cli.env: what the command line needs to reach this
// service as its administrator.
func (d dev) writeEnvironment(data, base string, issuer *devIssuer) error {
	t := devToken{Audience: issuer.Audience, Lifetime: devAdminLifetime}
	token, err := issuer.finish(issuer.people("admin"), t, time.Now())
	if err != nil {
		return err
	}
	lines := fmt.Sprintf("PROVOST_URL=%s\nPROVOST_TOKEN=%s\nexport PROVOST_URL PROVOST_TOKEN\n", base, token)
	return writeFile(filepath.Join(data, "cli.env"), []byte(lines))
}

// devIdentity reads the age identity in a file, or makes one, and returns its
// recipient.
func devIdentity(path string) (string, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		made, err := age.GenerateX25519Identity()
		if err != nil {
			return "", err
		}
		return made.Recipient().String(), writeFile(path, []byte(made.String()+"\n"))
	}
	if err != nil {
		return "", err
	}
	identity, err := age.ParseX25519Identity(trimLine(raw))
	if err != nil {
		return "", fmt.Errorf("%s: not an age identity", path) // its text is secret
	}
	return identity.Recipient().String(), nil
}
