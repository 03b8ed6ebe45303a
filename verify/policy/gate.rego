# SPDX-FileCopyrightText: The Provost Authors
# SPDX-License-Identifier: Apache-2.0

# The rules that ship with the gate. A rule is proven: it stands in `holds` or
# the answer is no. Nothing here is written as "deny if something exists", so
# taking evidence away can never turn a no into a yes.
#
# input.facts is verify.Facts, input.environment is policy.Environment.
package provost.gate

env := input.environment

provenance := input.facts.provenance

# How far ahead of the gate's clock a timestamp may be, in nanoseconds.
skew := (5 * 60) * 1000000000

required contains rule if {
	some rule in [
		"slsa.provenance_present",
		"slsa.builder_allowed",
		"slsa.source_matches_expectation",
		"slsa.no_unknown_parameters",
		"time.sound",
		"slsa.provenance_accepted",
	]
}

# Asked for unless the environment says that it is not.
required contains "sbom.present" if not env.sbom == "optional"

holds contains "slsa.provenance_present" if count(provenance) > 0

holds contains "slsa.builder_allowed" if count(builder_allowed) > 0

holds contains "slsa.source_matches_expectation" if count(source_matches) > 0

holds contains "slsa.no_unknown_parameters" if count(parameters_known) > 0

holds contains "time.sound" if count(time_sound) > 0

holds contains "slsa.provenance_accepted" if count(accepted) > 0

holds contains "sbom.present" if {
	some s in input.facts.sboms
	sound(s)
}

# The provenances of which each rule holds, by index.
builder_allowed contains i if {
	some i, p in provenance
	some b in env.builders
	vouches(b, p)
}

# An environment vouches for a builder as a whole: what was made under its id at
# a lower level is not what is meant. Provenance that says no level is of before
# levels were said.
vouches(b, p) if {
	b.id == p.builderId
	object.get(p, "level", 0) == 0
}

vouches(b, p) if {
	b.id == p.builderId
	is_number(p.level)
	p.level >= b.level
}

source_matches contains i if {
	some i, p in provenance
	some s in env.sources
	glob.match(s.repository, ["/"], p.source.repository)
	some ref in s.refs
	glob.match(ref, ["/"], p.source.ref)
	regex.match(`^([0-9a-f]{40}|[0-9a-f]{64})$`, p.source.commit)
}

parameters_known contains i if {
	some i, p in provenance
	p.source.repository != ""
	p.unknownParameters == []
}

time_sound contains i if {
	some i, p in provenance
	sound(p)
}

# A provenance counts only if every rule holds of that very one.
accepted := ((builder_allowed & source_matches) & parameters_known) & time_sound

# The certificate was valid when it signed, and that was not in the future.
sound(fact) if {
	signed := time.parse_rfc3339_ns(fact.signedAt)
	time.parse_rfc3339_ns(fact.notBefore) <= signed
	signed <= time.parse_rfc3339_ns(fact.notAfter)
	signed <= time.parse_rfc3339_ns(input.facts.now) + skew
}

default level := 0

# What the environment vouches for, of which no provenance that counts claims
# less.
level := max({b.level | some i in accepted; some b in env.builders; vouches(b, provenance[i])})

# Why a rule does not hold, or what makes it hold. Only words: no verdict
# depends on them.
because["slsa.provenance_present"] := sprintf("%d believed provenance attestation(s)", [count(provenance)])

because["slsa.builder_allowed"] := sprintf("built by %s; %q allows %s", [
	words({at_level(p.builderId, object.get(p, "level", 0)) | some p in provenance}), env.name,
	words({at_level(b.id, b.level) | some b in env.builders}),
])

because["slsa.source_matches_expectation"] := sprintf("built from %s; %q expects %s", [
	words({sprintf("%s at %s", [p.source.repository, p.source.ref]) | some p in provenance}), env.name,
	words({sprintf("%s at %s", [s.repository, r]) | some s in env.sources; some r in s.refs}),
])

because["slsa.no_unknown_parameters"] := sprintf("external parameters that the build type does not have: %s", [words({u | some p in provenance; some u in p.unknownParameters})])

because["time.sound"] := sprintf("signed at %s", [words({p.signedAt | some p in provenance})])

because["slsa.provenance_accepted"] := sprintf("%d provenance attestation(s) satisfy every rule at once", [count(accepted)])

because["sbom.present"] := sprintf("%d believed SBOM(s)", [count(input.facts.sboms)])

at_level(id, level) := id if level == 0

at_level(id, level) := sprintf("%s at level %d", [id, level]) if level != 0

words(set) := "nothing" if count(set) == 0

words(set) := concat(", ", sort(set)) if count(set) > 0

judgement := {
	"required": required,
	"holds": holds,
	"because": because,
	"level": level,
}
