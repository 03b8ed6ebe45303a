// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"strconv"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
)

// Words are the condition in plain words: sentences that must all hold. They
// say what the expression says, or there are none: nil for an expression that
// there are no words for.
func (c *Condition) Words() []string {
	words, ok := sentences(c.expr)
	if !ok {
		return nil
	}
	return words
}

// sentences are an expression's terms that must all hold.
func sentences(e ast.Expr) (all []string, ok bool) {
	if e.Kind() == ast.CallKind && e.AsCall().FunctionName() == operators.LogicalAnd {
		for _, arg := range e.AsCall().Args() {
			more, ok := sentences(arg)
			if !ok {
				return nil, false
			}
			all = append(all, more...)
		}
		return all, true
	}
	one, ok := sentence(e)
	return []string{one}, ok
}

// sentence is an expression in words.
func sentence(e ast.Expr) (words string, ok bool) {
	if e.Kind() == ast.SelectKind && e.AsSelect().IsTestOnly() {
		return e.AsSelect().FieldName() + " is there", true
	}
	if e.Kind() != ast.CallKind {
		return "", false
	}
	call := e.AsCall()
	args := call.Args()
	switch call.FunctionName() {
	case operators.LogicalAnd:
		left, ok := enclosed(args[0])
		right, too := enclosed(args[1])
		return left + ", and " + right, ok && too
	case operators.LogicalOr:
		left, ok := enclosed(args[0])
		right, too := enclosed(args[1])
		return left + ", or " + right, ok && too
	case operators.LogicalNot:
		if args[0].Kind() == ast.SelectKind && args[0].AsSelect().IsTestOnly() {
			return args[0].AsSelect().FieldName() + " is not there", true
		}
		inner, ok := sentence(args[0])
		return "not (" + inner + ")", ok
	case operators.Equals, operators.NotEquals:
		return comparison(call.FunctionName() == operators.Equals, args[0], args[1])
	case operators.In:
		if name, ok := literal(args[0]); ok && args[1].Kind() == ast.IdentKind {
			return name + " is there", true
		}
		name, ok := claimOf(args[0])
		if !ok || args[1].Kind() != ast.ListKind {
			return "", false
		}
		var values []string
		for _, item := range args[1].AsList().Elements() {
			value, ok := literal(item)
			if !ok {
				return "", false
			}
			values = append(values, strconv.Quote(value))
		}
		return name + " is one of " + strings.Join(values, ", "), len(values) > 0
	}
	return "", false
}

// enclosed is an expression as a part of another, in parentheses if it could be
// read with what stands beside it.
func enclosed(e ast.Expr) (string, bool) {
	words, ok := sentence(e)
	if e.Kind() == ast.CallKind {
		if f := e.AsCall().FunctionName(); f == operators.LogicalAnd || f == operators.LogicalOr {
			words = "(" + words + ")"
		}
	}
	return words, ok
}

// comparison is == or != between a claim and a text, or two claims. Neither
// holds when the claim is not there.
func comparison(equal bool, left, right ast.Expr) (string, bool) {
	name, ok := claimOf(left)
	if !ok {
		name, ok = claimOf(right)
		left, right = right, left
	}
	value, isText := literal(right)
	other, isClaim := claimOf(right)
	switch {
	case !ok || !isText && !isClaim:
		return "", false
	case isClaim && equal:
		return name + " is the same as " + other, true
	case isClaim:
		return name + " and " + other + " are there and are not the same", true
	case equal:
		return name + " is " + strconv.Quote(value), true
	}
	return name + " is there and is not " + strconv.Quote(value), true
}

// literal is a text that stands in an expression.
func literal(e ast.Expr) (string, bool) {
	if e.Kind() != ast.LiteralKind {
		return "", false
	}
	value, ok := e.AsLiteral().Value().(string)
	return value, ok
}
