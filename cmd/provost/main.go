// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

// Command provost attests, verifies and gates artifacts.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"provost/attest"
)

// version is set when a release is built.
var version = "dev"

// The exit codes, frozen. Pipelines branch on them.
const (
	exitPass       = 0 // PASS, done
	exitError      = 1 // it could not be decided or done
	exitUsage      = 2 // the command's words are off
	exitDeny       = 3 // decided, and the answer is no; or a bundle that does not verify
	exitNoEvidence = 4 // nothing was found to judge
)

// An exit is an answer that is not "yes": its message was printed already.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// A usageError is about the command's words.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// run is main without the exit. Any error that is not an answer is 1, so what
// was never decided never looks like PASS.
func run(ctx context.Context, args []string) int {
	root := command()
	root.SetArgs(args)
	c, err := root.ExecuteContextC(ctx)
	var answer exit
	var usage usageError
	switch {
	case err == nil:
		return exitPass
	case errors.As(err, &answer):
		return int(answer)
	}
	fmt.Fprintln(os.Stderr, "provost: "+safe(strings.ReplaceAll(err.Error(), "\n", "; ")))
	fmt.Fprintln(os.Stderr, "hint: "+safe(next(err, c.CommandPath())))
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitError
}

// command is the command tree: one file per verb.
func command() *cobra.Command {
	o := new(options)
	root := &cobra.Command{
		Use:   "provost",
		Short: "Attest, verify and gate artifacts",
		Long: `provost asks a Provost service to sign attestations, verifies them on this
machine, and asks whether an artifact may be promoted.

ARTIFACT is a file, sha256:<hex>, or oci://registry/repository@sha256:<hex>.

Exit codes: 0 PASS or done; 1 it could not be decided or done; 2 the command's
words are off; 3 DENY, or a bundle that does not verify; 4 NO_EVIDENCE.`,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			return o.validate()
		},
	}
	o.register(root)
	root.AddCommand(attestCommand(o), verifyCommand(o), gateCommand(o), exportCommand(o), keysCommand(o), trustCommand(o), revokeCommand(o), buildersCommand(o), apiKeysCommand(o), auditCommand(o))
	root.AddCommand(importCommand(o))
	root.AddCommand(loginCommand(o), logoutCommand(o), whoamiCommand(o))
	misuse(root)
	return root
}

// misuse makes every complaint of the flag parser a usage error, and a command
// group without a verb one too.
func misuse(c *cobra.Command) {
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{err}
	})
	if args := c.Args; args != nil {
		c.Args = func(c *cobra.Command, a []string) error {
			if err := args(c, a); err != nil {
				return usageError{err}
			}
			return nil
		}
	}
	if c.HasSubCommands() && c.RunE == nil {
		c.RunE = func(c *cobra.Command, a []string) error {
			if len(a) > 0 {
				return usageError{fmt.Errorf("unknown command %q for %q", a[0], c.CommandPath())}
			}
			return usageError{errors.New("which command?")}
		}
	}
	for _, sub := range c.Commands() {
		misuse(sub)
	}
}

// exitOf is how a command ends that printed a verdict.
//
// Closed: what is no verdict that we know is an error.
func exitOf(verdict string) error {
	switch verdict {
	case attest.VerdictPass.String():
		return nil
	case attest.VerdictDeny.String():
		return exit(exitDeny)
	case attest.VerdictNoEvidence.String():
		return exit(exitNoEvidence)
	}
	return exit(exitError)
}
