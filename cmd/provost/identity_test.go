// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"provost/api"
	"provost/api/identity"
	"provost/attest"
)

var update = flag.Bool("update", false, "write the generated parts of docs/IDENTITY.md anew")

// identityDoc is docs/IDENTITY.md and where it is.
func identityDoc(t *testing.T) (path, text string) {
	t.Helper()
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(root, "docs", "IDENTITY.md")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, string(raw)
}

var fence = regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$")

// What docs/IDENTITY.md has to configure a provider with is a configuration
// that the service takes, and builders that it registers.
func TestIdentityDocIsTrue(t *testing.T) {
	const service = "https://provost.example.com"
	_, doc := identityDoc(t)
	configured, registered := map[string]int{}, map[string]int{}
	for _, section := range strings.Split(doc, "\n## ")[1:] {
		title, _, _ := strings.Cut(section, "\n")
		var auth *api.Authenticator
		providers := map[string]identity.Provider{}
		for _, block := range fence.FindAllStringSubmatch(section, -1) {
			switch lang, text := block[1], block[2]; {
			case lang == "yaml" && strings.HasPrefix(text, "issuers:"):
				var c struct {
					Issuers []api.Issuer `yaml:"issuers"`
					Access  []api.Rule   `yaml:"access"`
				}
				d := yaml.NewDecoder(bytes.NewBufferString(text))
				d.KnownFields(true)
				if err := d.Decode(&c); err != nil {
					t.Fatalf("%s: %v", title, err)
				}
				var err error
				if auth, err = api.NewAuthenticator(c.Issuers, c.Access, api.AuthOptions{Service: service}); err != nil {
					t.Fatalf("%s: %v", title, err)
				}
				for _, i := range c.Issuers {
					if i.Audience != service || len(c.Access) == 0 {
						t.Errorf("%s: issuer %+v, rules %v", title, i, c.Access)
					}
					providers[i.URL], _ = identity.Lookup(i.Provider)
					configured[i.Provider]++
				}
			case lang == "yaml":
				if err := yaml.Unmarshal([]byte(text), new(map[string]any)); err != nil {
					t.Errorf("%s: %v", title, err)
				}
			case lang == "sh":
				for _, args := range shellLines(text) {
					b, ok := parsedBuilder(t, args)
					if !ok {
						continue
					}
					provider := providers[b.Issuer]
					if provider == nil {
						t.Errorf("%s: builder %s of issuer %q, which is not configured beside it", title, b.Name, b.Issuer)
						continue
					}
					b.BuildType = provider.Rules().BuildTypeURI(service)
					if err := auth.CheckBuilder(b); err != nil {
						t.Errorf("%s: %v", title, err)
					}
					registered[b.BuildType]++
				}
			default:
				t.Errorf("%s: a block of %s, which nobody reads", title, lang)
			}
		}
	}
	for _, name := range identity.Names() {
		provider, _ := identity.Lookup(name)
		if name != identity.MTLS && (configured[name] == 0 || registered[provider.Rules().BuildTypeURI(service)] == 0) {
			t.Errorf("provider %s is configured %d times, and its build type has %d builders", name, configured[name], registered[provider.Rules().BuildTypeURI(service)])
		}
	}
}

// shellLines are the commands of a block, in words; single quotes keep words
// together, and a backslash lines.
func shellLines(text string) (all [][]string) {
	word := regexp.MustCompile(`'([^']*)'|(\S+)`)
	for _, line := range strings.Split(strings.ReplaceAll(text, "\\\n", " "), "\n") {
		var words []string
		for _, m := range word.FindAllStringSubmatch(line, -1) {
			words = append(words, m[1]+m[2])
		}
		if len(words) > 0 {
			all = append(all, words)
		}
	}
	return all
}

// parsedBuilder is what the command line makes of `provost builders set …`. It
// fails the test for words that the command line does not know.
func parsedBuilder(t *testing.T, args []string) (attest.Builder, bool) {
	t.Helper()
	c, rest, err := command().Find(args[1:])
	if err == nil {
		err = c.ParseFlags(rest)
	}
	if err == nil {
		err = c.ValidateArgs(c.Flags().Args())
	}
	if err != nil || args[0] != "provost" || !c.Runnable() {
		t.Errorf("%q: %v", args, err)
		return attest.Builder{}, false
	}
	if c.CommandPath() != "provost builders set" {
		return attest.Builder{}, false
	}
	f := c.Flags()
	text := func(name string) string { return f.Lookup(name).Value.String() }
	level, _ := f.GetInt("level")
	crossCheck, _ := f.GetBool("cross-check")
	return attest.Builder{
		Name: f.Args()[0], Issuer: text("issuer"), Condition: text("condition"), Level: level, Repository: text("repository"), ID: text("id"), CrossCheck: crossCheck,
		PredicateTypes: attest.UsualPredicateTypes(), Signer: attest.PowerProvenance, Mode: attest.ModeToken,
	}, true
}

var generated = regexp.MustCompile(`(?s)(<!-- generated: ([a-z ]+) -->\n).*?(<!-- end -->)`)

// The tables of docs/IDENTITY.md are made of what the pages are made of, and
// of what the service decides by.
func TestIdentityDocTables(t *testing.T) {
	path, doc := identityDoc(t)
	tables := map[string]string{"roles": rolesTable(), "tenants": tenantsTable()}
	for _, name := range identity.Names() {
		if provider, _ := identity.Lookup(name); identity.FieldsOf(provider, nil) != nil {
			tables["origins "+name] = originsTable(provider)
		}
	}
	now := generated.ReplaceAllStringFunc(doc, func(part string) string {
		m := generated.FindStringSubmatch(part)
		table, ok := tables[m[2]]
		if !ok {
			t.Errorf("%s: nothing is generated for %s", path, m[2])
		}
		delete(tables, m[2])
		return m[1] + table + m[3]
	})
	if len(tables) > 0 {
		t.Errorf("%s has no place, or two, for the tables %v", path, tables)
	}
	switch {
	case t.Failed():
	case *update:
		if err := os.WriteFile(path, []byte(now), 0o644); err != nil {
			t.Fatal(err)
		}
	case now != doc:
		t.Errorf("%s is not what the code says: run go test ./cmd/provost -run TestIdentityDocTables -update, and look at what changed", path)
	}
}

func originsTable(p identity.Provider) string {
	var b strings.Builder
	b.WriteString("| field | origin | claims or members | when |\n|---|---|---|---|\n")
	for _, f := range identity.FieldsOf(p, nil) {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.Pointer, f.Origin.From, quoted(f.Origin.Names), f.When)
	}
	return b.String()
}

func rolesTable() string {
	var b strings.Builder
	b.WriteString("| role | grants |\n|---|---|\n")
	left := slices.Clone(attest.Grants)
	for _, role := range attest.Roles() {
		grants, _ := role.Grants()
		var names []string
		for _, g := range grants {
			names = append(names, string(g))
			left = slices.DeleteFunc(left, func(l attest.Grant) bool { return l == g })
		}
		fmt.Fprintf(&b, "| `%s` | %s |\n", role, quoted(names))
	}
	var names []string
	for _, g := range left {
		names = append(names, string(g))
	}
	fmt.Fprintf(&b, "| none: given by name alone | %s |\n", quoted(names))
	return b.String()
}

func tenantsTable() string {
	var b strings.Builder
	b.WriteString("| provider | `max_age` at most | ids for good: a rule for a named tenant pins one | owners: any other rule or condition may pin one instead |\n|---|---|---|---|\n")
	for _, name := range identity.Names() {
		provider, _ := identity.Lookup(name)
		r := provider.Rules()
		ids := quoted(r.Immutable)
		switch {
		case name == identity.OIDC:
			ids = "with a mapping: those of `mapping.tenant`"
		case name == identity.MTLS:
			continue
		}
		age := fmt.Sprintf("%gm", r.MaxAge.Minutes())
		if r.MaxAge >= time.Hour {
			age = fmt.Sprintf("%gh", r.MaxAge.Hours())
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", name, age, ids, quoted(r.Owners))
	}
	return b.String()
}

// quoted are names as code.
func quoted(names []string) string {
	var all []string
	for _, name := range names {
		all = append(all, "`"+name+"`")
	}
	return strings.Join(all, ", ")
}
