// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"provost/attest/sbom"
)

// A Mode is how provenance of a builder comes to be.
type Mode string

// The modes.
const (
	// ModeToken: the service writes it from the verified token; the caller
	// supplies digests and flagged dependencies, nothing else.
	ModeToken Mode = "token"
	// ModeControlPlane: a builder's own control plane submits a whole
	// predicate, whose builder and build type the registry pins.
	ModeControlPlane Mode = "control-plane"
)

// The states of a builder in the registry.
const (
	BuilderActive   = "active"
	BuilderProposed = "proposed" // waits for a second person
	BuilderRetired  = "retired"  // matches nothing any more; its page stays
	// BuilderUnbelieved is a row that was read and is not what was signed.
	BuilderUnbelieved = "unbelieved"
)

// A Builder is a row of the builder registry: which tokens speak for a builder,
// and what may be signed for it.
type Builder struct {
	// Name is of 1 to 63 lower-case letters, digits and '-'. The builder.id is
	// SERVICE/builders/NAME unless ID says otherwise.
	Name string `json:"name"`
	// ID is a builder.id that others gave the builder, such as the URL of a
	// reusable workflow; "" for our own.
	ID string `json:"id,omitempty"`
	// Issuer is the token issuer, exactly.
	Issuer string `json:"issuer"`
	// Condition is a CEL expression over claims that a token must fulfil.
	Condition string `json:"condition"`
	// BuildType is the buildType of its provenance.
	BuildType string `json:"buildType"`
	// Level is the highest SLSA build level of its provenance, 1 to 3.
	Level int `json:"level"`
	// PredicateTypes are what its tokens may have signed, whatever they are
	// granted beside it; at least one.
	PredicateTypes []string `json:"predicateTypes"`
	// Signer is who signs its provenance.
	Signer Power `json:"signer"`
	Mode   Mode  `json:"mode"`
	// Repository is the URL of the one repository that it builds, for issuers
	// whose tokens name none; "" otherwise.
	Repository string `json:"repository,omitempty"`
	// CrossCheck asks for the CI's API to be asked: what it does not confirm
	// is claimed at a lower level.
	CrossCheck bool `json:"crossCheck,omitempty"`
	// Description is for people: how builds are isolated, who answers for it.
	Description string `json:"description,omitempty"`

	State      string    `json:"state"`
	Revision   int64     `json:"revision"` // of the registry when the row was written, from 1
	ProposedBy Person    `json:"proposedBy"`
	ProposedAt time.Time `json:"proposedAt"`          // UTC
	ApprovedBy Person    `json:"approvedBy,omitzero"` // the second person; zero when none was needed
	ApprovedAt time.Time `json:"approvedAt,omitzero"` // UTC
	// Attestation is the ID of the attestation that has the row, signed.
	Attestation string `json:"attestation,omitempty"`
}

// A Person is who did something, so that two can be told apart.
type Person struct {
	Issuer  string `json:"issuer"`  // of the token
	Subject string `json:"subject"` // sub
	// Key is the same for the same human, whatever they logged in with: the
	// value of the claim that the configuration names, or issuer and subject.
	// "" for what is no person. It stays inside the service.
	Key string `json:"key,omitempty"`
}

func (p Person) String() string {
	if p == (Person{}) {
		return ""
	}
	return p.Issuer + " " + p.Subject
}

// nameShape is a name of a builder or an API key: a DNS label (RFC 1123).
var nameShape = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Bounds on a builder's texts, in bytes.
const (
	MaxCondition   = 4096
	MaxDescription = 4096
	maxURI         = 2048
)

// UsualPredicateTypes are what the jobs of a builder have signed when nothing
// else is said: SLSA provenance and SBOMs.
func UsualPredicateTypes() []string {
	return []string{ProvenanceType, sbom.CycloneDXType, sbom.SPDXTypePrefix + "2.2", sbom.SPDXTypePrefix + "2.3"}
}

// BuilderURI is the builder.id of our own for a builder of that name.
func BuilderURI(service, name string) string { return service + "/builders/" + name }

// BuilderID is the builder.id of provenance at that level. Each level below
// the builder's own has an id of its own, as it stands for another mode of
// security (SLSA v1.2 provenance, builder.id): whoever accepts the full one
// does not accept the other by accident.
func (b Builder) BuilderID(service string, level int) string {
	id := b.ID
	if id == "" {
		id = BuilderURI(service, b.Name)
	}
	if level < b.Level {
		return fmt.Sprintf("%s/level/%d", BuilderURI(service, b.Name), level)
	}
	return id
}

// Validate returns an [ErrInvalid] for a row that could not be meant. Whether
// its condition is one, and pins enough, is for whoever knows the issuer.
func (b Builder) Validate() error {
	switch {
	case !nameShape.MatchString(b.Name):
		return fmt.Errorf("%w: builder name %.80q: want 1 to 63 lower-case letters, digits and '-'", ErrInvalid, b.Name)
	case b.Issuer == "":
		return fmt.Errorf("%w: builder %s: issuer is required", ErrInvalid, b.Name)
	case b.Condition == "" || len(b.Condition) > MaxCondition:
		return fmt.Errorf("%w: builder %s: condition: want 1 to %d bytes", ErrInvalid, b.Name, MaxCondition)
	case b.Level < 1 || b.Level > 3:
		return fmt.Errorf("%w: builder %s: level %d: want 1 to 3", ErrInvalid, b.Name, b.Level)
	case b.Mode != ModeToken && b.Mode != ModeControlPlane:
		return fmt.Errorf("%w: builder %s: mode %.40q: want %s or %s", ErrInvalid, b.Name, b.Mode, ModeToken, ModeControlPlane)
	case b.Signer != PowerProvenance:
		return fmt.Errorf("%w: builder %s: signer %.40q: want %s", ErrInvalid, b.Name, b.Signer, PowerProvenance)
	case len(b.PredicateTypes) == 0 || len(b.PredicateTypes) > 32:
		return fmt.Errorf("%w: builder %s: predicateTypes: want 1 to 32", ErrInvalid, b.Name)
	case len(b.Description) > MaxDescription || !utf8.ValidString(b.Description) || strings.ContainsFunc(b.Description, func(r rune) bool { return r != '\n' && unicode.IsControl(r) }):
		return fmt.Errorf("%w: builder %s: description: want at most %d bytes of printable text", ErrInvalid, b.Name, MaxDescription)
	}
	for _, uri := range append([]string{b.BuildType}, b.PredicateTypes...) {
		if err := validateTypeURI(uri); err != nil {
			return fmt.Errorf("builder %s: %w", b.Name, err)
		}
	}
	if n := len(slices.Compact(slices.Sorted(slices.Values(b.PredicateTypes)))); n != len(b.PredicateTypes) {
		return fmt.Errorf("%w: builder %s: a predicate type is listed twice", ErrInvalid, b.Name)
	}
	for name, uri := range map[string]string{"id": b.ID, "repository": b.Repository} {
		if uri == "" {
			continue
		}
		if u, err := url.Parse(uri); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || len(uri) > maxURI || strings.HasSuffix(uri, "/") {
			return fmt.Errorf("%w: builder %s: %s %.80q: want an https URL without a slash at the end", ErrInvalid, b.Name, name, uri)
		}
	}
	return nil
}

// Propose decides about a change of the registry: what b, as sent, becomes when
// by asks for it, given the row that holds of its name, nil for none. What claims level 3 becomes a proposal, and so does
// every change of what two people have agreed on, also after it was retired,
// unless it is the very same. Machines and those who cannot be
// told from others may not propose it. Errors are ErrInvalid and ErrDenied.
func (b Builder) Propose(holds *Builder, by Caller, now time.Time) (Builder, error) {
	if err := by.RequireEverywhere(GrantBuilders); err != nil { // builders are of every tenant
		return Builder{}, err
	}
	if err := b.Validate(); err != nil {
		return Builder{}, err
	}
	b.State, b.ProposedBy, b.ProposedAt, b.ApprovedBy, b.ApprovedAt = BuilderActive, by.Is(), now.UTC(), Person{}, time.Time{}
	b.Attestation = ""
	// Once two have agreed on what a name stands for, one alone does not make it
	// stand for another thing, at whatever level: its builder.id is the same.
	// Of a row that is not believed it cannot be told: closed.
	agreed := holds != nil && (holds.ApprovedBy != (Person{}) || holds.State == BuilderUnbelieved)
	switch {
	case b.Level < 3 && !agreed:
	case agreed && holds.State == BuilderActive && b.sameClaim(*holds): // the description alone
		b.ApprovedBy, b.ApprovedAt = holds.ApprovedBy, holds.ApprovedAt
	case by.Person == "": // closed: whether the second is another could not be told
		return Builder{}, fmt.Errorf("%w: level 3 takes two people, and the token does not say which person this is", ErrDenied)
	default:
		b.State = BuilderProposed
	}
	return b, nil
}

// Approve decides about a proposal: what it becomes when by, another person,
// agrees. Errors are ErrDenied and ErrConflict.
func (b Builder) Approve(by Caller, now time.Time) (Builder, error) {
	if err := by.RequireEverywhere(GrantApprove); err != nil {
		return Builder{}, err
	}
	switch {
	case b.State != BuilderProposed:
		return Builder{}, fmt.Errorf("%w: builder %s: nothing is proposed", ErrConflict, b.Name)
	case by.Person == "" || b.ProposedBy.Key == "":
		return Builder{}, fmt.Errorf("%w: level 3 takes two people, and the token does not say which person this is", ErrDenied)
	case by.Person == b.ProposedBy.Key:
		return Builder{}, fmt.Errorf("%w: level 3 takes two people, and this one has proposed it", ErrDenied)
	}
	b.State, b.ApprovedBy, b.ApprovedAt = BuilderActive, by.Is(), now.UTC()
	return b, nil
}

// Retire decides that a builder matches nothing any more. It takes one person,
// since it takes away.
func (b Builder) Retire(by Caller, now time.Time) (Builder, error) {
	if err := by.RequireEverywhere(GrantBuilders); err != nil {
		return Builder{}, err
	}
	b.State, b.ProposedBy, b.ProposedAt = BuilderRetired, by.Is(), now.UTC()
	return b, nil
}

// mayHaveSigned refuses a predicate type that the caller's builder is not
// registered for, everything of a builder that is retired, and artifacts that
// its token was not bound to. Verdicts are the gate's own words, and revocations
// those of their grant.
func (c Caller) mayHaveSigned(predicateType string, subjects []Subject) error {
	if !within(c.Bound, subjects) {
		return fmt.Errorf("%w: the token is bound to other artifacts", ErrDenied)
	}
	if PowerFor(predicateType) == PowerVerdict {
		return nil
	}
	if c.Retired != "" { // closed: retiring it would give its tokens more types than it had
		return fmt.Errorf("%w: builder %s is retired: nothing is signed for its tokens", ErrDenied, c.Retired)
	}
	if c.Build == nil && c.Control == nil {
		return nil
	}
	return c.registeredFor(predicateType) // closed: also for a build of no registered builder
}

// Stands reports whether the row means or meant something, or may come to: not
// one that is not believed, nor a proposal that was withdrawn.
func (b Builder) Stands() bool {
	return b.State != BuilderUnbelieved && !(b.State == BuilderRetired && b.Level == 3 && b.ApprovedBy == Person{})
}

// sameClaim reports whether b and o say the same but for their descriptions.
func (b Builder) sameClaim(o Builder) bool {
	return b.Name == o.Name && b.ID == o.ID && b.Issuer == o.Issuer && b.Condition == o.Condition && b.BuildType == o.BuildType &&
		b.Level == o.Level && slices.Equal(b.PredicateTypes, o.PredicateTypes) && b.Signer == o.Signer && b.Mode == o.Mode &&
		b.Repository == o.Repository && b.CrossCheck == o.CrossCheck
}
