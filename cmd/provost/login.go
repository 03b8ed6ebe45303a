// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"provost/api/client"
	"provost/attest"
)

// A loginAnswer is what `provost login --output json` prints.
type loginAnswer struct {
	Service   string    `json:"service"`
	Issuer    string    `json:"issuer"`
	Subject   string    `json:"subject"`
	Expires   time.Time `json:"expires,omitzero"`
	Renewable bool      `json:"renewable"`
}

func loginCommand(o *options) *cobra.Command {
	var device, noBrowser bool
	var port int
	c := &cobra.Command{
		Use:   "login",
		Short: "Log in as a person, with a browser",
		Long: `Log in as a person, with a browser, at the issuer that the service names.

The address to open is printed, and opened where there is a browser (BROWSER
names another one). Where there is none, on a server perhaps, the issuer's
device flow is used if it has one: open the address anywhere.

The login is for this very --url. It is kept in provost/credentials.json of
your configuration directory, and used where neither --token-file nor
PROVOST_TOKEN gives a token. Log in at services that you trust: a service is
shown your token.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if port < 0 || port > 65535 {
				return usageError{fmt.Errorf("--port %d: want 0 to 65535", port)}
			}
			return o.login(c.Context(), device, noBrowser, port)
		},
	}
	f := c.Flags()
	f.BoolVar(&device, "device", false, "use the device flow: open the address anywhere")
	f.BoolVar(&noBrowser, "no-browser", false, "open no browser, only print the address to open on this machine")
	f.IntVar(&port, "port", 0, "`PORT` of this machine that the browser comes back to (default any)")
	return c
}

func (o *options) login(ctx context.Context, device, noBrowser bool, port int) error {
	if o.certificate != "" { // the service would answer for the machine, and the login be kept unseen
		return usageError{hint(errors.New("a login is a person's, and a client certificate a machine's"), "leave out --client-certificate and PROVOST_CLIENT_CERTIFICATE")}
	}
	service, err := o.service()
	if err != nil {
		return err
	}
	path, err := credentialsFile()
	if err != nil {
		return err
	}
	settings, err := service.Login(ctx)
	if errors.Is(err, attest.ErrNotFound) {
		return hint(fmt.Errorf("%s has no login for people", service.URL), "set PROVOST_TOKEN or pass --token-file; an administrator can add login to the service's configuration")
	}
	if err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	kept, err := readCredentials(path)
	if err != nil {
		return err
	}
	if other, ok := kept.otherUser(service.URL, settings); ok {
		return hint(fmt.Errorf("log in: %s names the same client of %s as %s does: each could use the other's tokens", service.URL, settings.Issuer, other),
			"if they are the same service: provost logout --url "+other)
	}
	ctx, rp, err := discover(ctx, settings)
	if err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	s, err := o.askPerson(ctx, rp, device, noBrowser, port)
	if err != nil {
		return hintUnless(fmt.Errorf("log in: %w", err), "try again: provost login --url "+service.URL)
	}
	// Nothing is kept that the service does not take.
	service.Token = func(context.Context) (string, error) { return s.Token, nil }
	who, err := service.Whoami(ctx)
	if err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	if err := changeCredentials(path, func(c *credentials) error { c.Sessions[service.URL] = s; return nil }); err != nil {
		return err
	}
	if os.Getenv("PROVOST_TOKEN") != "" {
		fmt.Fprintln(os.Stderr, "PROVOST_TOKEN is set and is used instead; to use the login: unset PROVOST_TOKEN")
	}
	p := o.printer()
	answer := loginAnswer{service.URL, who.Issuer, who.Subject, s.Expires, s.RefreshToken != ""}
	return p.answer(answer, func() {
		p.printf("logged in at %s as %s\n", safe(service.URL), safe(who.Subject))
		if len(who.Grants) == 0 && len(who.Tenants) == 0 {
			p.printf("the service grants you nothing yet: an administrator can, in its access table\n")
		}
	})
}

// askPerson runs the flow that fits, and says on standard error what to do.
func (o *options) askPerson(ctx context.Context, rp *relyingParty, device, noBrowser bool, port int) (session, error) {
	program := browserCommand()
	if noBrowser {
		program = nil
	} else if program == nil && rp.config.Endpoint.DeviceAuthURL != "" {
		device = true
	}
	fmt.Fprintf(os.Stderr, "Log in at %s for %s, as its client %s. Open\n", safe(rp.login.Issuer), safe(o.url), safe(rp.login.ClientID))
	if device {
		return rp.byDevice(ctx, func(address, code string) {
			fmt.Fprintf(os.Stderr, "\n  %s\n\nanywhere, and check that it shows the code %s\n", safe(address), safe(code))
		})
	}
	return rp.byBrowser(ctx, port, func(address string) {
		fmt.Fprintf(os.Stderr, "\n  %s\n\non this machine\n", safe(address))
		if program != nil {
			openBrowser(program, address)
		}
	})
}

func logoutCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "logout",
		Short: "End the login at the service",
		Long: `End the login at the service: remove it from this machine, and have the issuer
revoke its refresh token. The last token stays good until it expires.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			service, err := o.service()
			if err != nil {
				return err
			}
			path, err := credentialsFile()
			if err != nil {
				return err
			}
			var s session
			found := false
			if kept, err := readCredentials(path); err != nil {
				return err
			} else if _, found = kept.Sessions[service.URL]; found {
				err = changeCredentials(path, func(c *credentials) error {
					s, found = c.Sessions[service.URL]
					delete(c.Sessions, service.URL)
					return nil
				})
				if err != nil {
					return err
				}
			}
			revoked, err := false, error(nil)
			if found {
				revoked, err = revoke(c.Context(), s)
			}
			if err != nil {
				return hint(fmt.Errorf("logged out on this machine, but the refresh token was not revoked: %w", err), "end the session in the account pages of "+s.Login.Issuer)
			}
			p := o.printer()
			return p.answer(map[string]any{"service": service.URL, "loggedOut": found, "revoked": revoked}, func() {
				if !found {
					p.printf("there is no login at %s\n", safe(service.URL))
					return
				}
				p.printf("logged out of %s\n", safe(service.URL))
				if s.RefreshToken != "" && !revoked {
					p.printf("its issuer takes no refresh token back: end the session in the account pages of %s\n", safe(s.Login.Issuer))
				}
			})
		},
	}
}

func whoamiCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "whoami",
		Short: "Ask the service who you are, and what you may do",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			service, err := o.service()
			if err != nil {
				return err
			}
			who, err := service.Whoami(c.Context())
			if err != nil {
				return fmt.Errorf("who am I: %w", err)
			}
			p := o.printer()
			return p.answer(who, func() { p.table(whoamiRows(who)...) })
		},
	}
}

func whoamiRows(who client.Whoami) []string {
	kind := "a machine"
	if who.Person {
		kind = "a person"
	}
	rows := []string{"issuer\t" + safe(who.Issuer), "subject\t" + safe(who.Subject), "is\t" + kind}
	if who.Tenant != "" {
		rows = append(rows, "tenant\t"+safe(who.Tenant))
	}
	if who.Builder != "" {
		rows = append(rows, "builder\t"+safe(who.Builder))
	}
	if len(who.Grants) == 0 && len(who.Tenants) == 0 {
		return append(rows, "may\tnothing")
	}
	if len(who.Grants) > 0 {
		rows = append(rows, "may\t"+words(who.Grants)+", in every tenant")
	}
	for _, tenant := range slices.Sorted(maps.Keys(who.Tenants)) {
		rows = append(rows, "may\t"+words(who.Tenants[tenant])+", in "+safe(tenant))
	}
	return rows
}

func words(grants []attest.Grant) string {
	var all []string
	for _, g := range grants {
		all = append(all, safe(string(g)))
	}
	return strings.Join(all, " ")
}
