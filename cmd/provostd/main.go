// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

// Command provostd is the attestation authority and promotion gate.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"runtime/debug"
	"runtime/pprof"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set when a release is built.
var version = "dev"

// A usageError is about the command's words; it exits with 2.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

// A hinted error says what to type next.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

func hint(err error, next string) error { return hinted{err, next} }

// gcPercent lets the heap grow further between collections than Go's default:
// the heap of a signing service is small, and most of it short-lived. GOGC in
// the environment goes first.
const gcPercent = 400

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string) int {
	root := command()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "provostd: "+err.Error())
	h := hinted{hint: "provostd config check --config FILE looks at everything that a configuration names"}
	errors.As(err, &h) // its own hint, if it has one
	fmt.Fprintln(os.Stderr, "hint: "+h.hint)
	var usage usageError
	if errors.As(err, &usage) {
		return 2
	}
	return 1
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "provostd",
		Short:         "The attestation authority and promotion gate",
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
	}
	config := &cobra.Command{Use: "config", Short: "Work with a configuration"}
	config.AddCommand(configCheckCommand())
	root.AddCommand(authorityCommand(), devCommand(), devTokenCommand(), serveCommand(), initCommand(), tufCommand(), config)
	profile(root)
	misuse(root)
	return root
}

// profile adds --cpu-profile to every command: a profile of the whole run, which
// `go tool pprof` reads (docs/PERFORMANCE.md).
func profile(root *cobra.Command) {
	path := root.PersistentFlags().String("cpu-profile", "", "write a CPU profile of the whole run to `FILE`")
	_ = root.PersistentFlags().MarkHidden("cpu-profile")
	var file *os.File
	root.PersistentPreRunE = func(*cobra.Command, []string) (err error) {
		if *path == "" {
			return nil
		}
		if file, err = os.Create(*path); err != nil {
			return err
		}
		return pprof.StartCPUProfile(file)
	}
	root.PersistentPostRunE = func(*cobra.Command, []string) error {
		if file == nil {
			return nil
		}
		pprof.StopCPUProfile()
		return file.Close()
	}
}

// misuse makes every complaint about the command's words a usage error.
func misuse(c *cobra.Command) {
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{hint(err, c.CommandPath()+" --help")}
	})
	if args := c.Args; args != nil {
		c.Args = func(c *cobra.Command, a []string) error {
			if err := args(c, a); err != nil {
				return usageError{hint(err, c.CommandPath()+" --help")}
			}
			return nil
		}
	}
	if c.HasSubCommands() && c.RunE == nil {
		c.RunE = func(c *cobra.Command, _ []string) error {
			return usageError{hint(errors.New("which command?"), c.CommandPath()+" --help")}
		}
	}
	for _, sub := range c.Commands() {
		misuse(sub)
	}
}

// configFlag adds the required --config.
func configFlag(c *cobra.Command) *string {
	path := c.Flags().String("config", "", "`FILE` with the configuration (YAML)")
	c.Args = cobra.NoArgs
	return path
}

// requireConfig loads what --config names.
func requireConfig(path string) (Config, error) {
	if path == "" {
		return Config{}, usageError{hint(errors.New("--config FILE is required"), "deploy/provost.example.yaml in the sources is a whole configuration")}
	}
	c, err := loadConfig(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = hint(err, "deploy/provost.example.yaml in the sources is a whole configuration")
	}
	return c, err
}
