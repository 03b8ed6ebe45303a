// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"provost/attest"
)

// FuzzProvenanceRequest holds that what is decoded is what was written, and
// that nothing else than an invalid request is the answer to the rest.
func FuzzProvenanceRequest(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, `null`, `{"subjects":[]}`, `{"subjects":[{"name":"a","digest":{"sha256":"` + artifact.Hex() + `"}}]}`,
		`{"subjects":[{"digest":{"sha256":"` + artifact.Hex() + `","sha512":"` + strings.Repeat("a", 128) + `"}}]}`,
		`{"subjects":[{"digest":{"SHA256":"` + artifact.Hex() + `"}}]}`, `{"subjects":[[[[]]]]}`, `{"subjects":1e999}`, "\xff", `{"subjects":[{"name":"\ud800"}]}`,
	} {
		f.Add([]byte(seed))
	}
	e := echo.New()
	f.Fuzz(func(t *testing.T, body []byte) {
		req, err := http.NewRequest(http.MethodPost, "/v1/attestations/provenance", bytes.NewReader(body))
		if err != nil {
			t.Skip()
		}
		got, err := decodeProvenance(e.NewContext(req, echo.NewResponse(nil, e)))
		if err != nil {
			if p := problem(err); p.Status != 400 && p.Status != 413 {
				t.Fatalf("%v is a %d", err, p.Status)
			}
			return
		}
		for _, s := range got.Subjects {
			if s.SHA256.Algorithm() != attest.AlgSHA256 || !bytes.Contains(body, []byte(s.SHA256.Hex())) && !bytes.Contains(body, []byte(`\u`)) {
				t.Errorf("subject %+v of %q", s, body)
			}
		}
	})
}
