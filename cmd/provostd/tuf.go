// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"provost/attest"
	"provost/keys"
	"provost/keys/tuf"
)

// tufKey is the online key of the TUF repository, in the key backend.
const tufKey = "tuf"

func tufCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "tuf",
		Short: "The trust root by TUF: the ceremony with offline keys",
		Long: `The trust root by TUF: the ceremony with offline keys.

keygen makes an offline key, on a machine without a network. init prepares the
first publication as a file, stage each later one. The file is carried to the
holders of the offline keys, who sign it; publish publishes it when enough of
them have.`,
	}
	c.AddCommand(tufKeygenCommand(), tufInitCommand(), tufStageCommand(), tufSignCommand(), tufPublishCommand(), tufShowCommand())
	return c
}

func tufKeygenCommand() *cobra.Command {
	var out, recipient string
	c := &cobra.Command{
		Use:   "keygen --out NAME [--recipient age1…]",
		Short: "Make an offline key",
		Long: `Make an offline key: NAME.pub, which goes to whoever runs provostd tuf init, and
NAME.age, encrypted to the recipient, which stays with its holder. Without a
recipient it is NAME.key and not encrypted: guard it.

It opens no socket. It never replaces a file.`,
		Args: cobra.NoArgs,
	}
	c.Flags().StringVar(&out, "out", "", "`NAME` of the files, without their ending")
	c.Flags().StringVar(&recipient, "recipient", "", "age `RECIPIENT` (age1…) to encrypt the key to")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if out == "" {
			return usageError{hint(errors.New("--out NAME is required"), c.CommandPath()+" --help")}
		}
		private, public, err := tuf.GenerateKey(recipient)
		if err != nil {
			return hint(err, "age-keygen makes an identity and prints its recipient, age1…")
		}
		name := out + ".key"
		if recipient != "" {
			name = out + ".age"
		}
		if err := writeNew(name, private, 0o600); err != nil {
			return err
		}
		if err := writeNew(out+".pub", public, 0o644); err != nil {
			return err
		}
		key, err := tuf.ParsePublic(public)
		if err != nil {
			return err
		}
		id, err := tuf.KeyID(key)
		if err != nil {
			return err
		}
		fmt.Printf("key %s\n%s stays with its holder, %s.pub goes to whoever runs provostd tuf init\n", id, name, out)
		return nil
	}
	return c
}

func printNeeds(s *tuf.Staged) {
	for _, n := range s.Needs() {
		fmt.Println(n)
	}
}

func tufSignCommand() *cobra.Command {
	var keyFile, identityFile string
	var yes bool
	c := &cobra.Command{
		Use:   "sign --key FILE [--identity FILE] STAGED",
		Short: "Add the signature of an offline key to a staged file",
		Long: `Add the signature of an offline key to a staged file, after showing what is
signed and asking. It opens no socket and needs no configuration: run it where
the key is.`,
		Args: cobra.ExactArgs(1),
	}
	c.Flags().StringVar(&keyFile, "key", "", "`FILE` of the offline key")
	c.Flags().StringVar(&identityFile, "identity", "", "age identity `FILE` to which the key is encrypted")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask: what is shown was looked at before")
	c.RunE = func(c *cobra.Command, args []string) error {
		if keyFile == "" {
			return usageError{hint(errors.New("--key FILE is required"), "provostd tuf keygen makes a key")}
		}
		staged, err := tuf.ReadStaged(args[0])
		if err != nil {
			return hint(err, "provostd tuf init or provostd tuf stage writes a staged file")
		}
		fmt.Print(staged.Describe())
		if !yes {
			fmt.Print("sign this? type yes: ")
			answer, err := bufio.NewReader(io.LimitReader(os.Stdin, 100)).ReadString('\n')
			if fmt.Println(); strings.TrimSpace(answer) != "yes" {
				return hint(errors.Join(errors.New("not signed"), ignoreEOF(err)), "type yes, or give --yes, to sign what is shown")
			}
		}
		key, err := offlineKey(keyFile, identityFile)
		if err != nil {
			return err
		}
		what, err := staged.Sign(key)
		if err != nil {
			return hint(err, "provostd tuf show "+args[0]+" lists the keys that may sign")
		}
		if err := staged.Write(args[0]); err != nil {
			return err
		}
		fmt.Println("signed " + strings.Join(what, " and "))
		printNeeds(staged)
		return nil
	}
	return c
}

var keyID = regexp.MustCompile(`^[0-9a-f]{64}$`)

// publicFile reads the public part of an offline key.
func publicFile(path string) (crypto.PublicKey, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	key, err := tuf.ParsePublic(raw)
	if err != nil {
		return nil, hint(fmt.Errorf("%s: %w", path, err), "provostd tuf keygen writes it, as NAME.pub")
	}
	return key, nil
}

// writeNew writes a file that must not be there yet, durable when it returns.
func writeNew(path string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return hint(err, "choose another name: a key is never replaced")
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// offlineKey opens an offline key. A file that is not encrypted must be its
// owner's alone.
func offlineKey(keyFile, identityFile string) (crypto.Signer, error) {
	raw, err := readSecretFile(keyFile, tuf.Sealed)
	if err != nil {
		return nil, err
	}
	identity := ""
	if tuf.Sealed(raw) {
		if identityFile == "" {
			return nil, usageError{hint(fmt.Errorf("%s is encrypted: --identity FILE is required", keyFile), "it is the age identity to whose recipient the key was made")}
		}
		text, err := readSecretFile(identityFile, func([]byte) bool { return false })
		if err != nil {
			return nil, err
		}
		identity = string(text)
	}
	key, err := tuf.OpenKey(raw, identity)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", keyFile, err)
	}
	return key, nil
}

// readSecretFile reads a file that group and others cannot access, unless its
// content is public.
func readSecretFile(path string, public func([]byte) bool) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxConfig))
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 && !public(raw) {
		return nil, hint(fmt.Errorf("%s has mode %04o: group or others can read it", path, info.Mode().Perm()), "chmod go-rwx it, and ask who read it")
	}
	return raw, nil
}

func tufPublishCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "publish --config FILE STAGED…",
		Short: "Publish a staged file when enough offline keys have signed it",
		Long: `Publish a staged file when enough offline keys have signed it. Several files are
copies of one that were signed apart. It refuses what clients would refuse, an
authority that would be used before every client can know it (tuf.lead), and a
trusted root that lacks a revocation or an authority which is published.

It may be run again after it was interrupted. Clients find the old trust root or
the new one at any time.`,
		Args: cobra.MinimumNArgs(1),
	}
	path := c.Flags().String("config", "", "`FILE` with the configuration (YAML)")
	allowDropped := c.Flags().Bool("allow-dropped", false, allowDroppedUsage)
	withoutLead := c.Flags().Bool("without-lead", false, withoutLeadUsage)
	c.RunE = func(c *cobra.Command, args []string) error {
		config, err := requireTUF(*path)
		if err != nil {
			return err
		}
		var copies []*tuf.Staged
		for _, name := range args {
			staged, err := tuf.ReadStaged(name)
			if err != nil {
				return hint(err, "provostd tuf init or provostd tuf stage writes a staged file")
			}
			copies = append(copies, staged)
		}
		b, err := openBackend(c.Context(), config.Keys, nil)
		if err != nil {
			return fmt.Errorf("open keys: %w", err)
		}
		defer closeBackend(b)
		repository, err := openTUF(config, b, tufAllowed{dropped: *allowDropped, early: *withoutLead})
		if err != nil {
			return err
		}
		if err := repository.Publish(c.Context(), time.Now(), copies...); err != nil {
			return hint(err, "provostd tuf show --config "+*path+" "+args[0]+" says what is published and which signatures are missing")
		}
		status, err := repository.Status()
		if err != nil {
			return err
		}
		printStatus(config.TUF.Directory, status)
		fmt.Printf("clients begin with: cosign initialize --mirror %s/tuf --root 1.root.json\n", config.Service)
		return nil
	}
	return c
}

func tufShowCommand() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "show [--config FILE] [STAGED]",
		Short: "Show what is published, and what a staged file says and needs",
		Args:  cobra.MaximumNArgs(1),
	}
	c.Flags().StringVar(&path, "config", "", "`FILE` with the configuration (YAML)")
	c.RunE = func(c *cobra.Command, args []string) error {
		if path == "" && len(args) == 0 {
			return usageError{hint(errors.New("--config FILE or STAGED is required"), c.CommandPath()+" --help")}
		}
		if path != "" {
			config, err := requireTUF(path)
			if err != nil {
				return err
			}
			repository, err := tuf.Open(tuf.Config{Directory: config.TUF.Directory})
			if err != nil {
				return err
			}
			status, err := repository.Status()
			switch {
			case errors.Is(err, attest.ErrNotFound) && len(args) > 0:
				fmt.Println("nothing is published in " + config.TUF.Directory)
			case errors.Is(err, attest.ErrNotFound):
				return hint(err, "provostd tuf init prepares the first publication")
			case err != nil:
				return err
			default:
				printStatus(config.TUF.Directory, status)
			}
		}
		if len(args) == 0 {
			return nil
		}
		staged, err := tuf.ReadStaged(args[0])
		if err != nil {
			return hint(err, "provostd tuf init or provostd tuf stage writes a staged file")
		}
		fmt.Print(staged.Describe())
		printNeeds(staged)
		return nil
	}
	return c
}

func printStatus(dir string, s tuf.Status) {
	fmt.Println("published in " + dir)
	for _, r := range s.Roles {
		expired := ""
		if !r.Expires.After(time.Now()) {
			expired = "  EXPIRED: clients refuse it"
		}
		fmt.Printf("  %-9s  %8d  until %s%s\n", r.Role, r.Version, r.Expires.UTC().Format(time.RFC3339), expired)
	}
	fmt.Printf("%d of these offline keys sign root and targets\n", s.Threshold)
	for _, id := range s.Offline {
		fmt.Println("  " + id)
	}
	fmt.Println("the online key signs snapshot and timestamp\n  " + s.Online)
}

// checkTUF is what config check says of the repository: that clients can read
// it, and that its online key is there. Nothing published is not wrong yet.
func checkTUF(ctx context.Context, c Config, b keys.Backend) (warning string, err error) {
	repository, err := openTUF(c, b, tufAllowed{})
	if err != nil {
		return "", err
	}
	signers, err := onlineSigners(ctx, b, tufKey)
	if err != nil {
		return "", err
	}
	status, err := repository.Status()
	if errors.Is(err, attest.ErrNotFound) {
		return "nothing is published by TUF yet: provostd tuf init", nil
	}
	if err != nil {
		return "", err
	}
	for _, r := range status.Roles {
		if !r.Expires.After(time.Now()) {
			return "", fmt.Errorf("%s expired at %s: clients refuse it", r.Role, r.Expires.UTC().Format(time.RFC3339))
		}
	}
	for _, s := range signers {
		if id, err := tuf.KeyID(s.Public()); err == nil && id == status.Online {
			return "", nil
		}
	}
	return "", fmt.Errorf("the key backend does not have online key %s", status.Online)
}

// requireTUF loads a configuration that has a TUF repository.
func requireTUF(path string) (Config, error) {
	c, err := requireConfig(path)
	if err == nil && c.TUF == nil {
		err = hint(errors.New("the configuration has no TUF repository"), "add to it: tuf: {directory: DIR}")
	}
	return c, err
}

// tufAllowed is what somebody has asked for that is refused otherwise.
type tufAllowed struct{ dropped, early bool }

// openTUF opens the repository with its online key in the backend.
func openTUF(c Config, b keys.Backend, allowed tufAllowed) (*tuf.Repository, error) {
	return tuf.Open(tuf.Config{
		AllowDropped: allowed.dropped, WithoutLeadUnsafe: allowed.early, Directory: c.TUF.Directory, Lead: c.TUF.Lead, SnapshotExpiry: c.TUF.SnapshotExpiry, TimestampExpiry: c.TUF.TimestampExpiry,
		Online: func(ctx context.Context) ([]crypto.Signer, error) { return onlineSigners(ctx, b, tufKey) },
	})
}

// onlineSigners are the versions of a key, the newest last. They must not
// outlive ctx.
func onlineSigners(ctx context.Context, b keys.Backend, key string) ([]crypto.Signer, error) {
	versions, err := b.Versions(ctx, key)
	if err != nil {
		return nil, err
	}
	signers := make([]crypto.Signer, len(versions))
	for i, v := range versions {
		signers[i] = keys.SignerOf(ctx, b, key, v)
	}
	return signers, nil
}
