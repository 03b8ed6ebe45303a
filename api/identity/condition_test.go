// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"provost/attest"
)

func condition(t testing.TB, text string) *Condition {
	t.Helper()
	c, err := Compile(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return c
}

// What a condition pins is what checkers of the tables rely on: with any other
// value it must not hold.
func TestPins(t *testing.T) {
	for text, want := range map[string]Pins{
		`claims.a == "1"`:                                         {"a": {"1"}},
		`"1" == claims.a`:                                         {"a": {"1"}},
		`claims["a"] == "1"`:                                      {"a": {"1"}},
		`claims["a.b/c"] == "1"`:                                  {"a.b/c": {"1"}},
		`claims.a in ["1", "2"]`:                                  {"a": {"1", "2"}},
		`claims.a in []`:                                          {"a": nil},
		`claims.a == "1" && claims.b == "2"`:                      {"a": {"1"}, "b": {"2"}},
		`claims.a == "1" && claims.b != "2"`:                      {"a": {"1"}},
		`claims.a == "1" && !(claims.b == "2")`:                   {"a": {"1"}},
		`claims.a == "1" && has(claims.b)`:                        {"a": {"1"}},
		`claims.a == "1" && (claims.b == "2" || claims.c == "3")`: {"a": {"1"}},
		`claims.a == "1" && claims.a == "2"`:                      {"a": {}},
		`claims.a in ["1", "2"] && claims.a in ["2", "3"]`:        {"a": {"2"}},
		`claims.a == "1" || claims.a == "2"`:                      {"a": {"1", "2"}},
		`claims.a == "1" || claims.b == "1"`:                      {},
		`claims.a == "1" || true`:                                 {},
		`(claims.a == "1" && claims.b == "2") || (claims.a == "3" && claims.c == "4")`: {"a": {"1", "3"}},
		`claims.a == "1" || claims.a == "1"`:                                           {"a": {"1"}},
		`!(claims.a == "1")`:                                                           nil,
		`!(claims.a != "1")`:                                                           nil, // it does, and is not worth the words
		`claims.a != "1"`:                                                              nil,
		`has(claims.a)`:                                                                nil,
		`claims.a == claims.b`:                                                         nil,
		`claims[claims.a] == "1"`:                                                      nil,
		`"a" in claims`:                                                                nil,
		`claims.a in [claims.b]`:                                                       nil,
		`claims.a in ["1", claims.b]`:                                                  nil,
		`(claims.a == "1") == true`:                                                    nil,
		`(claims.a == "1") != false`:                                                   nil,
		`"1" == "1"`:                                                                   nil,
		`true`:                                                                         nil,
	} {
		if diff := cmp.Diff(want, condition(t, text).Pins()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
}

func TestMatch(t *testing.T) {
	claims := Texts{"a": "1", "b": "2", "empty": "", "kubernetes.io.namespace": "ci", "quoted": `say "hi" \ ✓ 😀`}
	for text, want := range map[string]bool{
		`claims.a == "1"`:                                           true,
		`claims.a == "2"`:                                           false,
		`claims.a == "1 "`:                                          false,
		`claims.a == ""`:                                            false,
		`claims.A == "1"`:                                           false,
		`claims.a == "1" && claims.b == "2"`:                        true,
		`claims.a == "1" && claims.b == "3"`:                        false,
		`claims.a == "0" || claims.b == "2"`:                        true,
		`claims.a in ["0", "1"]`:                                    true,
		`claims.a in []`:                                            false,
		`!(claims.a in ["0"])`:                                      true,
		`claims.a != "0"`:                                           true,
		`claims["kubernetes.io.namespace"] == "ci"`:                 true,
		`claims.kubernetes == "ci"`:                                 false,
		`claims.quoted == "say \"hi\" \\ \u2713 \U0001F600"`:        true,
		`has(claims.a) && claims.a == "1"`:                          true,
		`!has(claims.none) && claims.a == "1"`:                      true,
		`"a" in claims`:                                             true,
		`claims.empty == ""`:                                        true,
		`true`:                                                      true,
		`claims.a == claims.a`:                                      true,
		`claims.a == claims.b`:                                      false,
		`claims[claims.quoted] == "1"`:                              false,
		`(claims.a == "1") == true`:                                 true,
		`claims.none == "1"`:                                        false,
		`claims.none != "1"`:                                        false, // whichever way it goes
		`!(claims.none == "1")`:                                     false,
		`claims.none == ""`:                                         false,
		`claims.none in ["", "1"]`:                                  false,
		`!(claims.none in ["1"])`:                                   false,
		`claims.none == claims.none`:                                false,
		`claims.none == "1" || claims.a == "1"`:                     true, // the other holds alone
		`claims.none != "1" || claims.a == "0"`:                     false,
		`(claims.none == "1" || claims.a == "1") && claims.b == ""`: false,
		`claims.none != "1" && claims.a == "1"`:                     false,
	} {
		if got := condition(t, text).Match(claims); got != want {
			t.Errorf("%s: %t; want %t", text, got, want)
		}
	}
	for text := range map[string]bool{`claims.a == "1"`: true, `claims.a != "1"`: true, `!(claims.a == "1")`: true} {
		if condition(t, text).Match(nil) {
			t.Errorf("%s holds of no claims", text)
		}
	}
}

// There is no way to look at a part of a claim, to compute one, or to repeat.
func TestConditionsThatAreRefused(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":              ``,
		"no expression":        `claims.a ==`,
		"two expressions":      "claims.a == \"1\"\nclaims.b == \"2\"",
		"a text":               `claims.a`,
		"a number":             `1`,
		"another variable":     `token.a == "1"`,
		"a variable alone":     `a == "1"`,
		"the claims whole":     `claims == {}`,
		"a number's claim":     `claims.a == 1`,
		"a list of numbers":    `claims.a in [1]`,
		"a member of a text":   `claims.a.b == "1"`,
		"a prefix":             `claims.a.startsWith("1")`,
		"a suffix":             `claims.a.endsWith("1")`,
		"a part":               `claims.a.contains("1")`,
		"a pattern":            `claims.a.matches("1.*")`,
		"a pattern as call":    `matches(claims.a, "1.*")`,
		"less":                 `claims.a < "1"`,
		"at most":              `claims.a <= "1"`,
		"more":                 `claims.a > "1"`,
		"at least":             `claims.a >= "1"`,
		"a sum of texts":       `claims.a + claims.b == "12"`,
		"a sum of lists":       `claims.a in ["1"] + ["2"]`,
		"a difference":         `2 - 1 == 1`,
		"a product":            `2 * 1 == 2`,
		"a quotient":           `2 / 1 == 2`,
		"a remainder":          `2 % 1 == 0`,
		"a negative":           `-(1) == 1`,
		"a choice":             `claims.a == "1" ? true : false`,
		"a size":               `size(claims.a) == 1`,
		"a size as method":     `claims.a.size() == 1`,
		"a macro all":          `["1"].all(x, x == claims.a)`,
		"a macro exists":       `["1"].exists(x, x == claims.a)`,
		"a macro exists_one":   `["1"].exists_one(x, x == claims.a)`,
		"a macro map":          `claims.a in ["1"].map(x, x)`,
		"a macro filter":       `claims.a in ["1"].filter(x, true)`,
		"all of the claims":    `claims.all(k, k == "a")`,
		"a conversion to text": `string(1) == claims.a`,
		"to a number":          `int(claims.a) == 1`,
		"to a double":          `double(claims.a) == 1.0`,
		"to bytes":             `bytes(claims.a) == b"1"`,
		"to a boolean":         `bool(claims.a)`,
		"to anything":          `dyn(claims.a) == 1`,
		"to a time":            `timestamp(claims.a) == timestamp("2026-01-01T00:00:00Z")`,
		"to a duration":        `duration(claims.a) == duration("1s")`,
		"a type":               `type(claims.a) == string`,
		"an optional":          `claims.?a.orValue("1") == "1"`,
		"an unknown function":  `f(claims.a)`,
		"has of all":           `has(claims)`,
		"the claims as listed": `claims == {"a": "1"}`,
		"a map":                `claims.a == {"x": "1"}["x"]`,
		"a message":            `google.protobuf.Struct{} == claims`,
		"a wrapped text":       `google.protobuf.StringValue{value: claims.a} == "1"`,
		"a string unclosed":    `claims.a == "1`,
		"parentheses too many": `claims.a == "1")`,
		"too long a text":      `claims.a == "` + strings.Repeat("x", attest.MaxCondition) + `"`,
		"too deep":             strings.Repeat("(", 200) + `claims.a == "1"` + strings.Repeat(")", 200),
	} {
		c, err := Compile(text)
		if !errors.Is(err, attest.ErrInvalid) || c != nil || len(err.Error()) > 400 {
			t.Errorf("%s: %v, %v; want it invalid, in few words", name, c, err)
		}
	}
}

// The longest condition that is accepted is evaluated in the time of a
// request, and still says what it says.
func TestConditionCost(t *testing.T) {
	list := func(n int, more string) string {
		var b strings.Builder
		b.WriteString(`claims.a in [`)
		for i := range n {
			fmt.Fprintf(&b, "%q,", fmt.Sprint(i))
		}
		return b.String() + fmt.Sprintf("%q]", more)
	}
	terms := `claims.a == "1"` + strings.Repeat(` || claims.a == "1"`, 200)
	for name, text := range map[string]string{"a list": list(500, "x"), "terms": terms} {
		if len(text) > attest.MaxCondition {
			t.Fatalf("%s: %d bytes", name, len(text))
		}
		c, value := condition(t, text), map[string]string{"a list": "x", "terms": "1"}[name]
		start := time.Now()
		if !c.Match(Texts{"a": value}) {
			t.Errorf("%s: does not hold of %s", name, value)
		}
		if c.Match(Texts{"a": "y"}) {
			t.Errorf("%s: holds of y", name)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("%s: took %s", name, took)
		}
	}
	// What costs more than the bound is no yes.
	huge := map[string]string{}
	for i := range 20_000 {
		huge[fmt.Sprint(i)] = strings.Repeat("x", 100)
	}
	huge["a"], huge["b"] = strings.Repeat("x", 1<<20), strings.Repeat("x", 1<<20)
	if costly := condition(t, `claims.a == claims.b && `+strings.Repeat(`claims.a == claims.b && `, 100)+`claims.a == claims.b`); costly.Match(huge) {
		t.Error("a condition that compares megabytes a hundred times holds")
	}
}

func TestExactly(t *testing.T) {
	claims := map[string]string{
		"a": "1", "b.c/d": `quoted " and \ `, "new\nline": "tab\t, nul\x00, é, ✓, 😀", `") || ("`: `") || true || ("`,
	}
	c, err := Exactly(claims)
	if err != nil {
		t.Fatal(err)
	}
	if !c.Match(claims) {
		t.Errorf("%s does not hold of its own claims", c)
	}
	for name := range claims {
		if diff := cmp.Diff([]string{claims[name]}, c.Pins()[name]); diff != "" {
			t.Errorf("%q: %s", name, diff)
		}
		other := maps.Clone(claims)
		other[name] += "x"
		if c.Match(other) {
			t.Errorf("holds with another %q", name)
		}
		if delete(other, name); c.Match(other) {
			t.Errorf("holds without %q", name)
		}
	}
	if _, err := Exactly(nil); !errors.Is(err, attest.ErrInvalid) {
		t.Errorf("no claims: %v; want it invalid", err)
	}
}

func TestBoth(t *testing.T) {
	c, err := Both(map[string]string{"a": "1"}, `claims.b == "2" || claims.c == "3"`)
	if err != nil {
		t.Fatal(err)
	}
	if c.Match(Texts{"a": "0", "c": "3"}) || !c.Match(Texts{"a": "1", "c": "3"}) {
		t.Errorf("%s: an or goes around the claims", c)
	}
	for name, when := range map[string]string{
		"parentheses": `claims.b == "2") || (claims.c == "3"`, "a comment": `claims.b == "2" // ) && false`, "no expression": `)`,
	} {
		if c, err := Both(map[string]string{"a": "1"}, when); err == nil && (c.Match(Texts{"c": "3"}) || c.Match(Texts{"b": "2"})) {
			t.Errorf("%s: %s holds without the claim", name, c)
		}
	}
	for _, c := range []struct {
		claims map[string]string
		when   string
	}{{nil, ""}, {map[string]string{}, ""}} {
		if _, err := Both(c.claims, c.when); !errors.Is(err, attest.ErrInvalid) {
			t.Errorf("nothing at all: %v; want it invalid", err)
		}
	}
}

// Claims that conditions see are texts, numbers and booleans.
func TestTexts(t *testing.T) {
	c, err := ParseClaims([]byte(`{"s":"x","n":7,"f":1.50,"b":true,"z":null,"a":["x"],"o":{"s":"y","o":{"s":"z"},"a":[{"s":1}]},"e":""}`))
	if err != nil {
		t.Fatal(err)
	}
	want := Texts{"s": "x", "n": "7", "f": "1.50", "b": "true", "o.s": "y", "o.o.s": "z", "e": ""}
	if diff := cmp.Diff(want, c.Texts()); diff != "" {
		t.Error(diff)
	}
	for name, raw := range map[string]string{
		"a list":                 `["x"]`,
		"nothing":                `null`,
		"a name twice":           `{"a":1,"a":2}`,
		"a name twice, nested":   `{"o":{"a":1,"a":2}}`,
		"a nested name, spelled": `{"kubernetes.io":{"namespace":"a"},"kubernetes.io.namespace":"b"}`,
		"two ways to one":        `{"a":{"b.c":1},"a.b":{"c":2}}`,
		"too many":               `{"a":{` + strings.TrimSuffix(strings.Repeat(`"%d":1,`, 600), ",") + `}}`,
	} {
		if name == "too many" {
			numbers := make([]any, 600)
			for i := range numbers {
				numbers[i] = i
			}
			raw = fmt.Sprintf(raw, numbers...)
		}
		if c, err := ParseClaims([]byte(raw)); !errors.Is(err, attest.ErrInvalid) && !isLimit(err) {
			t.Errorf("%s: %v, %v; want it refused", name, c, err)
		}
	}
}

func isLimit(err error) bool {
	_, ok := errors.AsType[*attest.LimitError](err)
	return ok
}

// FuzzCompile holds that no text makes the compiler panic, and that a condition
// holds of no claims without what it pins.
func FuzzCompile(f *testing.F) {
	for _, text := range []string{
		`claims.a == "1"`, `claims["a"] in ["1", "2"] && !(claims.b == "2")`, `has(claims.a) || "x" in claims`, `(claims.a == "" && claims.b == "x") || claims.a == ""`,
		`claims.a == claims.b`, `claims.a.startsWith("x")`, `[1].map(x, x)`, `"\U0001F600" == claims.a`, `((((`, `claims.a == "1" && claims.a == "2"`, "\x00", `claims.?a`,
	} {
		f.Add(text, "a", "1", "b", "2")
	}
	f.Fuzz(func(t *testing.T, text, name1, value1, name2, value2 string) {
		c, err := Compile(text)
		if err != nil {
			if c != nil || !errors.Is(err, attest.ErrInvalid) {
				t.Fatalf("refused with %v, %v", c, err)
			}
			return
		}
		raw, err := json.Marshal(map[string]string{name1: value1, name2: value2})
		if err != nil {
			t.Skip()
		}
		claims, err := ParseClaims(raw)
		if err != nil {
			t.Skip()
		}
		texts := claims.Texts()
		for name, values := range c.Pins() {
			if got, ok := texts[name]; c.Match(texts) && (!ok || !slices.Contains(values, got)) {
				t.Errorf("%s holds of %v, and pins %s to %q", text, texts, name, values)
			}
			less := maps.Clone(texts)
			if delete(less, name); c.Match(less) {
				t.Errorf("%s holds of %v, without %s", text, less, name)
			}
			// The shortcut that Match takes is no more than that.
			if out, _, err := c.program.Eval(map[string]any{"claims": map[string]string(less)}); err == nil && out.Value() == true {
				t.Errorf("%s evaluates to true of %v, without %s", text, less, name)
			}
		}
	})
}
