// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"fmt"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/env"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"provost/attest"
)

// A Condition says which tokens something is about: a CEL expression over the
// map claims, such as
//
//	claims.repository_id == "74" && claims.runner_environment in ["github-hosted"]
//
// It has ==, !=, in, &&, ||, !, has and nothing else: no prefix, no pattern, no
// order. A claim that is not there makes a comparison fail, whichever way it
// goes. Conditions are safe for concurrent use.
type Condition struct {
	text    string
	program cel.Program
	pins    Pins
	expr    ast.Expr
}

// Pins are the values that a condition lets claims have, for the claims that it
// pins: with any other value, or without the claim, it does not hold.
type Pins map[string][]string

// costLimit bounds one evaluation, in CEL's units. A comparison costs a few;
// a list costs with its length.
const costLimit = 10_000

// operatorsAllowed are all that a condition may be made of.
var operatorsAllowed = []string{operators.Equals, operators.NotEquals, operators.In, operators.LogicalAnd, operators.LogicalOr, operators.LogicalNot, operators.Index}

// conditions is the language. It is not the standard one less something, but
// what is listed.
func conditions() (*cel.Env, error) {
	subset := env.NewLibrarySubset().AddIncludedMacros(operators.Has)
	for _, name := range operatorsAllowed {
		subset.AddIncludedFunctions(env.NewFunction(name))
	}
	return cel.NewCustomEnv(
		cel.StdLib(cel.StdLibSubset(subset)),
		cel.Variable("claims", cel.MapType(cel.StringType, cel.StringType)),
		cel.ParserRecursionLimit(32), cel.ParserExpressionSizeLimit(attest.MaxCondition),
	)
}

// Compile reads a condition. The error is an [attest.ErrInvalid].
func Compile(text string) (*Condition, error) {
	if text == "" || len(text) > attest.MaxCondition {
		return nil, fmt.Errorf("%w: condition: want 1 to %d bytes", attest.ErrInvalid, attest.MaxCondition)
	}
	language, err := conditions()
	if err != nil {
		return nil, err
	}
	compiled, issues := language.Compile(text)
	if issues.Err() != nil {
		first, _, _ := strings.Cut(issues.Err().Error(), "\n")
		return nil, fmt.Errorf("%w: condition: %.300s", attest.ErrInvalid, first)
	}
	if !compiled.OutputType().IsExactType(cel.BoolType) {
		return nil, fmt.Errorf("%w: condition: want one that is true or false", attest.ErrInvalid)
	}
	built := ast.MatchDescendants(ast.NavigateAST(compiled.NativeRep()), func(e ast.NavigableExpr) bool {
		return slices.Contains([]ast.ExprKind{ast.MapKind, ast.StructKind, ast.ComprehensionKind}, e.Kind())
	})
	if len(built) > 0 {
		return nil, fmt.Errorf("%w: condition: want texts and lists of them alone", attest.ErrInvalid)
	}
	program, err := language.Program(compiled, cel.CostLimit(costLimit), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, fmt.Errorf("%w: condition: %.300v", attest.ErrInvalid, err)
	}
	return &Condition{text, program, pinsOf(compiled.NativeRep().Expr()), compiled.NativeRep().Expr()}, nil
}

// Exactly is the condition that all these claims have these very values.
func Exactly(claims map[string]string) (*Condition, error) {
	var terms []string
	for name, value := range claims {
		terms = append(terms, fmt.Sprintf("claims[%s] == %s", quote(name), quote(value)))
	}
	slices.Sort(terms)
	return Compile(strings.Join(terms, " && "))
}

// Both is the condition that these claims have these very values, and that the
// expression holds; either may be empty, not both.
func Both(claims map[string]string, when string) (*Condition, error) {
	if len(claims) == 0 {
		return Compile(when)
	}
	exactly, err := Exactly(claims)
	if err != nil || when == "" {
		return exactly, err
	}
	if _, err := Compile(when); err != nil { // alone: its parentheses must be its own
		return nil, err
	}
	return Compile(exactly.text + " && (" + when + ")")
}

// quote is a CEL string literal.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < 0x20 || r >= 0x7f:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// Pins are what the condition pins.
func (c *Condition) Pins() Pins { return c.pins }

func (c *Condition) String() string { return c.text }

// Match reports whether the claims fulfil the condition. What cannot be
// evaluated, such as a claim that is not there, does not match.
func (c *Condition) Match(claims Texts) bool {
	for name, values := range c.pins { // most rows are of other tokens
		if !slices.Contains(values, claims[name]) {
			return false
		}
	}
	out, _, err := c.program.Eval(map[string]any{"claims": map[string]string(claims)})
	return err == nil && out == types.True
}

// Texts are the claims that conditions see.
type Texts map[string]string

// Texts are the claims that have a text: see [Claims.Text].
func (c Claims) Texts() Texts {
	texts := make(Texts, len(c))
	for name := range c {
		if text, ok := c.Text(name); ok {
			texts[name] = text
		}
	}
	return texts
}

// pinsOf finds what an expression pins: of terms that must all hold, what any
// of them does; of terms of which one must, what all of them do.
func pinsOf(e ast.Expr) Pins {
	if e.Kind() != ast.CallKind {
		return nil
	}
	call := e.AsCall()
	switch args := call.Args(); call.FunctionName() {
	case operators.LogicalAnd:
		pins := Pins{}
		for _, arg := range args {
			for name, values := range pinsOf(arg) {
				if before, ok := pins[name]; ok {
					values = slices.DeleteFunc(slices.Clone(values), func(v string) bool { return !slices.Contains(before, v) })
				}
				pins[name] = values
			}
		}
		return pins
	case operators.LogicalOr:
		pins := pinsOf(args[0])
		for _, arg := range args[1:] {
			others := pinsOf(arg)
			both := Pins{}
			for name, values := range pins {
				if more, ok := others[name]; ok {
					both[name] = slices.Compact(slices.Sorted(slices.Values(slices.Concat(values, more))))
				}
			}
			pins = both
		}
		return pins
	case operators.Equals:
		for i := range args {
			if name, ok := claimOf(args[i]); ok && args[1-i].Kind() == ast.LiteralKind {
				if value, ok := args[1-i].AsLiteral().Value().(string); ok {
					return Pins{name: {value}}
				}
			}
		}
	case operators.In:
		name, ok := claimOf(args[0])
		if !ok || args[1].Kind() != ast.ListKind {
			return nil
		}
		var values []string
		for _, item := range args[1].AsList().Elements() {
			if item.Kind() != ast.LiteralKind {
				return nil
			}
			value, ok := item.AsLiteral().Value().(string)
			if !ok {
				return nil
			}
			values = append(values, value)
		}
		return Pins{name: values}
	}
	return nil
}

// claimOf is the claim that an expression reads: claims.name or claims["name"].
func claimOf(e ast.Expr) (string, bool) {
	isClaims := func(e ast.Expr) bool { return e.Kind() == ast.IdentKind && e.AsIdent() == "claims" }
	switch e.Kind() {
	case ast.SelectKind:
		s := e.AsSelect()
		return s.FieldName(), !s.IsTestOnly() && isClaims(s.Operand())
	case ast.CallKind:
		call := e.AsCall()
		if call.FunctionName() != operators.Index || !isClaims(call.Args()[0]) || call.Args()[1].Kind() != ast.LiteralKind {
			return "", false
		}
		name, ok := call.Args()[1].AsLiteral().Value().(string)
		return name, ok
	}
	return "", false
}
