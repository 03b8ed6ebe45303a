// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

// The bounds on everything that comes in. They stand together so that a
// reviewer sees all of them at once.
const (
	// MaxSubjects is the largest number of subjects of one statement.
	MaxSubjects = 1024
	// MaxSubjectName is the largest subject name, in bytes.
	MaxSubjectName = 1024
	// MaxPredicate is the largest predicate carried inside a statement, in
	// bytes.
	MaxPredicate = 16 << 20
	// MaxStatement is the largest encoded statement, in bytes: the predicate
	// plus MaxSubjects subjects with both digests and longest names.
	MaxStatement = MaxPredicate + MaxSubjects*(6*MaxSubjectName+320) + 4096
	// MaxBundle is the largest bundle, in bytes: base64 of the statement plus
	// certificate, timestamps and log entries.
	MaxBundle = (MaxStatement+2)/3*4 + 256<<10
	// MaxDependencies is the largest number of dependencies that a caller may
	// add to its provenance.
	MaxDependencies = 1024
	// MaxDepth is the deepest nesting of arrays and objects in JSON.
	MaxDepth = 64
	// MaxIdempotencyKey is the longest Idempotency-Key, in bytes.
	MaxIdempotencyKey = 255
	// MaxEnvironment is the longest environment name, in bytes.
	MaxEnvironment = 64
)
