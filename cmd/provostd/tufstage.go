// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	trustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/spf13/cobra"

	"provost/attest"
	"provost/keys"
	"provost/keys/tuf"
	"provost/store"
)

// stageFlags are those of init and stage.
type stageFlags struct {
	config, out, trustedRoot     string
	targetsExpiry, rootExpiry    time.Duration
	threshold                    int
	add, remove                  []string
	newRoot, newOnline, firstOne bool
	allowDropped, withoutLead    bool
}

func (f *stageFlags) common(c *cobra.Command) {
	c.Args = cobra.NoArgs
	c.Flags().StringVar(&f.config, "config", "", "`FILE` with the configuration (YAML)")
	c.Flags().StringVar(&f.out, "out", "", "`STAGED` file to write")
	c.Flags().StringVar(&f.trustedRoot, "trusted-root", "", "`FILE` with the trusted root to publish (default what the service has)")
	c.Flags().DurationVar(&f.targetsExpiry, "targets-expiry", tuf.DefaultTargetsExpiry, "how long the targets are good")
	c.Flags().DurationVar(&f.rootExpiry, "root-expiry", tuf.DefaultRootExpiry, "how long a new root is good")
	c.Flags().IntVar(&f.threshold, "threshold", 0, "how `MANY` offline keys must sign")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if f.out == "" {
			return usageError{hint(errors.New("--out STAGED is required"), c.CommandPath()+" --help")}
		}
		if f.firstOne && (len(f.add) == 0 || f.threshold == 0) {
			return usageError{hint(errors.New("--key FILE.pub, once for each offline key, and --threshold MANY are required"), "provostd tuf keygen makes a key")}
		}
		return stageTUF(c.Context(), *f)
	}
}

func tufInitCommand() *cobra.Command {
	f := stageFlags{firstOne: true}
	c := &cobra.Command{
		Use:   "init --config FILE --key FILE.pub… --threshold MANY --out STAGED",
		Short: "Prepare the first publication",
		Long: `Prepare the first publication: a root that names the offline keys and the online
key of the service, and targets. It publishes nothing. Run provostd init before.`,
	}
	f.common(c)
	c.Flags().StringArrayVar(&f.add, "key", nil, "public `FILE` of an offline key; once for each")
	return c
}

func tufStageCommand() *cobra.Command {
	var f stageFlags
	c := &cobra.Command{
		Use:   "stage --config FILE --out STAGED",
		Short: "Prepare a publication: new targets, and a new root if something of it changes",
		Long: `Prepare a publication: new targets with the trusted root that the service has
now, good for another time; and a new root if an offline key, the threshold, the
online key or, with --new-root, only its expiry changes. It publishes nothing.

A new root must be signed by a threshold of the keys before and of the new ones.`,
	}
	f.common(c)
	c.Flags().StringArrayVar(&f.add, "add-key", nil, "public `FILE` of an offline key to add")
	c.Flags().StringArrayVar(&f.remove, "remove-key", nil, "`ID` or public file of an offline key to remove")
	c.Flags().BoolVar(&f.newOnline, "online-key", false, "replace the online key by a new version of it")
	c.Flags().BoolVar(&f.newRoot, "new-root", false, "a new root even if only its expiry changes")
	c.Flags().BoolVar(&f.allowDropped, "allow-dropped", false, allowDroppedUsage)
	c.Flags().BoolVar(&f.withoutLead, "without-lead", false, withoutLeadUsage)
	return c
}

const allowDroppedUsage = "drop authorities that are published and that the trusted root does not have any more"

const withoutLeadUsage = "publish authorities that have begun, as those that others run: clients that have not fetched this yet refuse what they make. It brings back one that was dropped: look at what is shown"

// keptHint says what to do when a publication would lose trust or revocations.
const keptHint = "is this the newest database? --allow-dropped if an authority is to go"

// stageTUF writes a staged file.
func stageTUF(ctx context.Context, f stageFlags) error {
	c, err := requireTUF(f.config)
	if err != nil {
		return err
	}
	change := tuf.Change{
		TargetsExpiry: f.targetsExpiry, RootExpiry: f.rootExpiry, NewRoot: f.newRoot, NewOnline: f.newOnline, Threshold: f.threshold,
	}
	for _, name := range f.add {
		key, err := publicFile(name)
		if err != nil {
			return err
		}
		change.Add = append(change.Add, key)
	}
	for _, name := range f.remove {
		id := name
		if !keyID.MatchString(name) {
			key, err := publicFile(name)
			if err != nil {
				return hint(err, "name the key by its 64 digits, as provostd tuf show prints them, or by its .pub file")
			}
			if id, err = tuf.KeyID(key); err != nil {
				return err
			}
		}
		change.Remove = append(change.Remove, id)
	}
	var trusted []byte
	if f.trustedRoot != "" {
		if trusted, err = os.ReadFile(f.trustedRoot); err != nil {
			return err
		}
	}
	db, err := store.OpenSQLite(ctx, c.Database)
	if err != nil {
		return hint(fmt.Errorf("open database: %w", err), "provostd init makes it")
	}
	defer db.Close()
	b, err := openBackend(ctx, c.Keys, nil)
	if err != nil {
		return fmt.Errorf("open keys: %w", err)
	}
	defer closeBackend(b)
	keep := tuf.KeepComing
	if f.withoutLead {
		keep = tuf.KeepNew
	}
	own, err := ownTrustedRoot(ctx, c, b, db, keep)
	if err != nil {
		return err
	}
	if trusted == nil {
		trusted = own
	}
	if change.Files, err = tufFiles(ctx, c, db, trusted); err != nil {
		return err
	}
	repository, err := openTUF(c, b, tufAllowed{dropped: f.allowDropped})
	if err != nil {
		return err
	}
	status, err := repository.Status()
	switch {
	case err == nil && f.firstOne:
		return hint(fmt.Errorf("a TUF repository is published in %s already", c.TUF.Directory), "provostd tuf stage prepares the next publication")
	case errors.Is(err, attest.ErrNotFound) && !f.firstOne:
		return hint(err, "provostd tuf init prepares the first publication")
	case err != nil && !errors.Is(err, attest.ErrNotFound):
		return err
	}
	if f.newOnline {
		if err := newOnlineKey(ctx, b, status.Online); err != nil {
			return err
		}
	}
	staged, err := repository.Stage(ctx, time.Now(), change)
	switch {
	case errors.Is(err, attest.ErrNotFound):
		err = hint(err, "provostd init --config "+f.config+" makes the online key")
	case errors.Is(err, attest.ErrDenied), errors.Is(err, attest.ErrConflict):
		err = hint(err, keptHint)
	}
	if err != nil {
		return err
	}
	if err := staged.WriteNew(f.out); err != nil {
		return hint(err, "choose another name, or remove that file")
	}
	fmt.Print(staged.Describe())
	printNeeds(staged)
	fmt.Printf("now carry %s to the holders of the offline keys: provostd tuf sign --key FILE %s\n", f.out, f.out)
	return nil
}

// newOnlineKey makes a new version of the online key, unless the newest is one
// that the published root does not name.
func newOnlineKey(ctx context.Context, b backend, published string) error {
	signers, err := onlineSigners(ctx, b, tufKey)
	if err != nil {
		return err
	}
	id, err := tuf.KeyID(signers[len(signers)-1].Public())
	if err != nil || id != published {
		return err
	}
	if err := b.Rotate(ctx, tufKey); err != nil {
		return hint(fmt.Errorf("rotate key %s: %w", tufKey, err), "rotate it yourself, with credentials that may, then stage again")
	}
	return nil
}

// ownTrustedRoot is the trusted root that the service has, made of what is in
// its database under the pinned root.
func ownTrustedRoot(ctx context.Context, c Config, b keys.Backend, db *store.SQLite, keep tuf.Keep) ([]byte, error) {
	pinned, err := pinnedRoot(c)
	if err != nil {
		return nil, err
	}
	config, err := authorityConfig(c, b, db, pinned)
	if err != nil {
		return nil, err
	}
	own, err := keys.TrustedRoot(ctx, config) // also verifies every certificate
	if err != nil {
		return nil, err
	}
	return toPublish(c, own, keep)
}

// toPublish is our trusted root without what was taken back in what is
// published: a database that was put back to an older state may have lost that,
// and knows of no authority that was dropped.
func toPublish(c Config, own []byte, keep tuf.Keep) ([]byte, error) {
	published, ok, err := tuf.Published(c.TUF.Directory)
	if err != nil || !ok {
		return own, err
	}
	left, changed, err := tuf.Restrict(published, own, time.Now(), keep)
	for _, a := range changed {
		fmt.Fprintln(os.Stderr, "note: not, or not for as long, as the database has it, since that is not published (--without-lead takes what has begun and was never published):", a)
	}
	return left, err
}

// tufFiles are the target files that clients find: the trusted root, what
// signing clients ask for, and the public key of every signer's every version,
// for those that take only a key. The database was verified before.
func tufFiles(ctx context.Context, c Config, db *store.SQLite, trusted []byte) (map[string][]byte, error) {
	signing, err := signingConfig(c, trusted)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{"trusted_root.json": trusted, "signing_config.v0.2.json": signing}
	certificates, err := db.Certificates(ctx)
	if err != nil {
		return nil, err
	}
	for _, cert := range certificates {
		if !slices.Contains(attest.Powers, attest.Power(cert.Name)) {
			continue
		}
		leaf, err := x509.ParseCertificate(cert.DER)
		if err != nil {
			return nil, fmt.Errorf("certificate %s version %d: %w", cert.Name, cert.Version, err)
		}
		public, ok := leaf.PublicKey.(*ecdsa.PublicKey)
		if !ok {
			return nil, fmt.Errorf("certificate %s version %d: its key is %T", cert.Name, cert.Version, leaf.PublicKey)
		}
		if files[fmt.Sprintf("%s-v%d.pem", cert.Name, cert.Version)], err = tuf.PublicPEM(public); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// signingConfig is what clients that sign ask for. Only the timestamp
// authority of this service answers others; it certifies nobody's keys.
func signingConfig(c Config, trusted []byte) ([]byte, error) {
	tr, err := root.NewTrustedRootFromJSON(trusted)
	if err != nil {
		return nil, fmt.Errorf("trusted root: %w", err)
	}
	var stamping []root.Service
	for _, a := range tr.TimestampingAuthorities() {
		if t, ok := a.(*root.SigstoreTimestampingAuthority); ok {
			stamping = append(stamping, root.Service{
				URL: t.URI, MajorAPIVersion: 1, Operator: c.Keys.Organization,
				ValidityPeriodStart: t.ValidityPeriodStart, ValidityPeriodEnd: t.ValidityPeriodEnd,
			})
		}
	}
	slices.SortStableFunc(stamping, func(a, b root.Service) int { return b.ValidityPeriodStart.Compare(a.ValidityPeriodStart) })
	none := root.ServiceConfiguration{Selector: trustroot.ServiceSelector_ANY}
	config, err := root.NewSigningConfig(root.SigningConfigMediaType02, nil, nil, nil, none, stamping, none)
	if err != nil {
		return nil, fmt.Errorf("signing configuration: %w", err)
	}
	raw, err := config.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("signing configuration: %w", err)
	}
	v := jsontext.Value(raw) // protojson varies its white space on purpose
	if err := v.Canonicalize(); err != nil {
		return nil, fmt.Errorf("signing configuration: %w", err)
	}
	return v, nil
}
