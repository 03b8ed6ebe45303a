// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"provost/api/client"
	"provost/attest"
	"provost/verify"
)

// auditPage is how many records are asked for at once; the service gives no
// more.
const auditPage = 1000

func auditCommand(o *options) *cobra.Command {
	c := &cobra.Command{Use: "audit", Short: "Who asked for what, and whether they were let"}
	c.AddCommand(auditListCommand(o), auditVerifyCommand(o))
	return c
}

// An auditList is what audit list prints as JSON.
type auditList struct {
	Records []attest.AuditRecord `json:"records"`
}

func auditListCommand(o *options) *cobra.Command {
	var after int64
	var limit int
	var refused bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List decisions about authority, oldest first",
		Long: `List decisions about authority, oldest first: who asked for what, from where,
whether they were let, and why. Reads that were allowed are not among them.

What is listed is not verified: see provost audit verify.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if after < 0 || limit < 1 {
				return usageError{errors.New("--after wants 0 or more, --limit 1 or more")}
			}
			list := auditList{Records: []attest.AuditRecord{}}
			err := o.auditLog(c.Context(), after, func(page client.AuditPage) (more bool, err error) {
				for _, r := range page.Records {
					if len(list.Records) < limit && (!refused || r.Outcome != attest.AuditAllowed) {
						list.Records = append(list.Records, r)
					}
				}
				return len(list.Records) < limit, nil
			})
			if err != nil {
				return err
			}
			p := o.printer()
			return p.answer(list, func() {
				rows := []string{"SEQ\tAT\tOUTCOME\tACTION\tSUBJECT\tREMOTE\tREQUEST\tOBJECT\tWHY"}
				for _, r := range list.Records {
					rows = append(rows, fmt.Sprintf("%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s", r.Seq, r.At.Format(time.RFC3339), safe(r.Outcome), safe(r.Action),
						safe(orNone(r.Subject)), safe(orNone(r.Remote)), safe(orNone(r.Request)), safe(orNone(r.Object)), short(safe(orNone(r.Why)))))
				}
				p.table(rows...)
			})
		},
	}
	c.Flags().Int64Var(&after, "after", 0, "only records after this `SEQ`")
	c.Flags().IntVar(&limit, "limit", 100, "at most `N` records")
	c.Flags().BoolVar(&refused, "refused", false, "only refusals")
	return c
}

// auditLog reads the service's audit log after a record, page by page, until
// there are no more or do wants no more.
func (o *options) auditLog(ctx context.Context, after int64, do func(client.AuditPage) (more bool, err error)) error {
	service, err := o.service()
	if err != nil {
		return err
	}
	for cursor := strconv.FormatInt(after, 10); ; {
		page, err := service.Audit(ctx, cursor, auditPage)
		if err != nil {
			return fmt.Errorf("read the audit log: %w", err)
		}
		if more, err := do(page); err != nil || !more || page.Next == "" {
			return err
		}
		if n := len(page.Records); n == 0 || page.Next != strconv.FormatInt(page.Records[n-1].Seq, 10) || page.Next == cursor {
			return errors.New("read the audit log: the service's pages do not follow one another")
		}
		cursor = page.Next
	}
}

type auditVerify struct {
	trustedRoot, heads string
	keep               keeper
}

func auditVerifyCommand(o *options) *cobra.Command {
	f := new(auditVerify)
	c := &cobra.Command{
		Use:   "verify",
		Short: "Verify the audit log on this machine",
		Long: `Verify the audit log on this machine: reads all records, computes their chain
anew, and verifies the head that the service signed last. A record that was
changed, moved or taken out breaks the chain; records that were cut off at the
end show against a signed head. What came after the head is not covered yet.

The service could show an older head than it has signed. Keep one now and then
with --bundle, where whoever runs the service cannot write, and have the log
verified against it with --heads.

Exit codes: 0 it holds; 1 it could not be decided, for instance because no head
was signed yet; 3 it does not hold; 4 there is no record.`,
		Example: `  provost audit verify --trusted-root trusted_root.json --bundle head-2026-03-01.json
  provost audit verify --trusted-root trusted_root.json --heads head-2026-03-01.json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c.Context(), o) },
	}
	flags := c.Flags()
	flags.StringVar(&f.trustedRoot, "trusted-root", "", "`FILE` with the trusted root (trusted_root.json)")
	flags.StringVar(&f.heads, "heads", "", "`FILE` with heads that were kept, one bundle a line")
	flags.StringVar(&f.keep.path, "bundle", "", "`FILE` to keep the signed head in")
	flags.BoolVar(&f.keep.force, "force", false, "replace the file that --bundle names")
	return c
}

// An auditReport is what audit verify prints as JSON.
type auditReport struct {
	Verdict string `json:"verdict"` // PASS, DENY, NO_EVIDENCE or ERROR
	Records int64  `json:"records"` // that were read and follow one another
	// Head is the newest signed head to which the records reach.
	Head   *auditedHead `json:"head,omitempty"`
	Reason string       `json:"reason,omitempty"` // why not, unless it is a PASS
}

// An auditedHead is a head that was verified.
type auditedHead struct {
	Service  string        `json:"service"`
	Seq      int64         `json:"seq"`
	Hash     attest.Digest `json:"hash"`
	SignedAt time.Time     `json:"signedAt"`
}

func (f *auditVerify) run(ctx context.Context, o *options) error {
	if err := f.keep.ready(); err != nil {
		return err
	}
	trust, err := o.trust(ctx, f.trustedRoot)
	if err != nil {
		return err
	}
	heads, err := f.kept(trust)
	if err != nil {
		return err
	}
	r, bundle, err := f.verify(ctx, o, trust, heads)
	if err != nil {
		return err
	}
	if f.keep.path != "" && r.Verdict == attest.VerdictPass.String() {
		if bundle == nil { // closed: who keeps heads counts on having this one
			return errors.New("keep the signed head: the service shows none")
		}
		if _, err := f.keep.write(nil, bundle); err != nil {
			return fmt.Errorf("keep the signed head: %w", err)
		}
	}
	p := o.printer()
	if err := p.answer(r, func() { r.print(p) }); err != nil {
		return err
	}
	return exitOf(r.Verdict)
}

// kept verifies the heads of the file. One that does not verify is an error:
// it is not the service's log that it speaks against.
func (f *auditVerify) kept(trust *verify.Trust) ([]auditedHead, error) {
	if f.heads == "" {
		return nil, nil
	}
	raw, err := readBounded(f.heads, maxBundleFile)
	if err != nil {
		return nil, fmt.Errorf("read heads: %w", err)
	}
	bundles, err := splitBundles(raw)
	if err != nil {
		return nil, err
	}
	if len(bundles) == 0 {
		return nil, fmt.Errorf("read heads: %s holds none", f.heads)
	}
	var all []auditedHead
	for i, b := range bundles {
		h, err := verifiedHead(trust, b)
		if err != nil {
			return nil, hint(fmt.Errorf("head %d of %s: %w", i+1, f.heads, err), "leave it out, or look whom is trusted: provost trust show")
		}
		all = append(all, h)
	}
	return all, nil
}

func verifiedHead(trust *verify.Trust, bundle []byte) (auditedHead, error) {
	h, at, err := trust.VerifyAuditHead(bundle)
	return auditedHead{h.Service, h.Seq, h.Hash, at}, err
}

// verify reads the whole log. What does not hold is in the report; an error is
// what could not be read. The bundle is that of the service's head.
func (f *auditVerify) verify(ctx context.Context, o *options, trust *verify.Trust, heads []auditedHead) (r auditReport, bundle []byte, err error) {
	var last attest.AuditHead
	deny := func(format string, args ...any) (bool, error) {
		r.Verdict, r.Reason = attest.VerdictDeny.String(), fmt.Sprintf(format, args...)
		return false, nil
	}
	first := true
	err = o.auditLog(ctx, 0, func(page client.AuditPage) (bool, error) {
		// The head of the first page: all records of it were there when it was
		// read, so they are among those that follow.
		if first && page.Head != nil {
			h, err := verifiedHead(trust, page.Head.Bundle)
			if err != nil {
				return deny("the signed head %s does not verify, at %v", page.Head.ID, err)
			}
			heads, bundle = append(heads, h), page.Head.Bundle
		}
		first = false
		for _, one := range page.Records {
			if last, err = attest.VerifyAudit([]attest.AuditRecord{one}, last); err != nil {
				return deny("%v", err)
			}
			r.Records = last.Seq
			for _, h := range heads {
				if h.Seq == last.Seq && h.Hash != last.Hash {
					return deny("record %d is another than when the head was signed at %s", h.Seq, h.SignedAt.Format(time.RFC3339))
				}
			}
		}
		return true, nil
	})
	if err != nil || r.Verdict != "" {
		return r, bundle, err
	}
	for _, h := range heads {
		if h.Service != heads[0].Service {
			return r, bundle, fmt.Errorf("the heads are of two services, %s and %s", heads[0].Service, h.Service)
		}
		if h.Seq > last.Seq {
			_, _ = deny("the head signed at %s covers record %d, and the log ends with record %d", h.SignedAt.Format(time.RFC3339), h.Seq, last.Seq)
			return r, bundle, nil
		}
		if r.Head == nil || h.Seq > r.Head.Seq {
			r.Head = &h
		}
	}
	switch {
	case r.Head != nil:
		r.Verdict = attest.VerdictPass.String()
	case last.Seq == 0:
		r.Verdict, r.Reason = attest.VerdictNoEvidence.String(), "there is no record"
	default: // closed: a log whose end was cut off together with its heads looks the same
		r.Verdict, r.Reason = attest.VerdictError.String(), "no head was signed yet, so nobody can tell whether records are missing at the end"
	}
	return r, bundle, nil
}

func (r auditReport) print(p printer) {
	p.printf("%s  audit log\n", p.mark(r.Verdict))
	if r.Records > 0 {
		p.printf("%d records follow one another\n", r.Records)
	}
	if r.Reason != "" {
		p.printf("%s\n", safe(r.Reason))
	}
	if h := r.Head; h != nil && r.Verdict == attest.VerdictPass.String() {
		p.printf("head signed at %s by %s covers record %d; %d came after it\n", h.SignedAt.Format(time.RFC3339), safe(h.Service), h.Seq, r.Records-h.Seq)
	}
}
