// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

// Package api is who may ask: HTTP, authentication, and handlers of a few
// lines around one generic.
//
// It decides nothing about content. What a caller may say is decided in
// attest, what is believed in verify; this room turns a token into an
// [attest.Caller], a request into a typed question, and an error into an
// answer. Its invariants:
//
//   - Nothing of a request but its headers is read before the caller is
//     authenticated and holds the route's grant.
//   - Everything read has a bound; JSON is read strictly, unknown members are
//     refused.
//   - A caller's authority comes from a verified token and the configured
//     rules, never from anything else in the request.
//   - What fails falls closed: no error path answers with a success status.
//   - An internal detail never leaves: it goes to the log under the request's
//     id. Tokens, bodies and query strings go nowhere.
package api
