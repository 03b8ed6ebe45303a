// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"

	"github.com/open-policy-agent/opa/v1/rego"
)

// What rules are compiled with, other rules than those that are shipped, and
// what rules say of any input: the facts of a decision are never malformed, so
// no caller can reach that.
var (
	Capabilities = capabilities
	GateRules    = gateRules
	Compile      = compile
)

func (p *Policy) Eval(ctx context.Context, input any) (rego.ResultSet, error) {
	return p.query.Eval(ctx, rego.EvalInput(input))
}
