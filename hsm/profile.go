package hsm

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"

	"github.com/keywright/keywright/hsm/internal/cryptoki"
)

//go:embed profiles.yaml
var profilesYAML []byte

// Profile is what is known about a vendor's module: what to prefer among the things
// that a token can do, and what cannot be found out by trying. It is data, in
// profiles.yaml, which says what each value means and where it comes from.
type Profile struct {
	Name  string  `yaml:"name"`  // such as "softhsm2"; "default" fits every module
	Title string  `yaml:"title"` // for people
	Match []Match `yaml:"match"`

	RootWrap    Fact[[]Mechanism] `yaml:"root_wrap"` // the preferred first
	GCMIV       Fact[GCMIV]       `yaml:"gcm_iv"`
	ValueLen    Fact[Need]        `yaml:"value_len"` // CKA_VALUE_LEN at C_UnwrapKey
	Uses        Fact[string]      `yaml:"uses"`      // in templates: "explicit" or "implied"
	ECDSA       Fact[string]      `yaml:"ecdsa"`     // "raw" or "der"
	OAEPHashes  Fact[[]string]    `yaml:"oaep_hashes"`
	PIN         Fact[string]      `yaml:"pin"`
	MaxSessions Fact[int]         `yaml:"max_sessions"` // 0: none known
	InitArgs    Fact[Need]        `yaml:"init_args"`
	Changes     Fact[string]      `yaml:"changes"` // of objects: "alone" or "beside"
	Notes       []Fact[string]    `yaml:"notes"`
}

// Fact is something known, and the source of that knowledge.
type Fact[T any] struct {
	Is   T      `yaml:"is"`
	From string `yaml:"from"`
}

// TestedHere tells whether the fact was seen on the real module by Keywright's
// tests, rather than read in the documentation.
func (f Fact[T]) TestedHere() bool { return strings.HasPrefix(f.From, "tested here") }

// Match is one way to recognise a module; fields that are empty fit everything.
type Match struct {
	Module              string `yaml:"module"`               // pattern of the file's name (path.Match)
	LibraryManufacturer string `yaml:"library_manufacturer"` // prefix of CK_INFO's
	TokenManufacturer   string `yaml:"token_manufacturer"`   // prefix of CK_TOKEN_INFO's
	TokenModel          string `yaml:"token_model"`          // prefix of CK_TOKEN_INFO's
}

// GCMIV says where AES-GCM's IV comes from.
type GCMIV string

// The origins of an IV.
const (
	GCMIVOurs      GCMIV = "ours"      // the token takes ours
	GCMIVParameter GCMIV = "parameter" // the HSM writes its own into CK_GCM_PARAMS
	GCMIVAppended  GCMIV = "appended"  // the HSM's own follows the tag
	GCMIVNone      GCMIV = "none"      // no AES-GCM
)

// Need says whether a module wants something: "required", "optional", "any",
// "refused" or "none".
type Need string

var (
	gcmIVs      = []GCMIV{GCMIVOurs, GCMIVParameter, GCMIVAppended, GCMIVNone}
	valueLens   = []Need{"required", "refused", "any"}
	initArgs    = []Need{"none", "optional", "required"}
	uses        = []string{"explicit", "implied"}
	changes     = []string{"alone", "beside"}
	ecdsas      = []string{"raw", "der"}
	oaepHashes  = []string{"SHA1", "SHA256", "SHA384", "SHA512"}
	maxSessions = 1 << 20
)

// Profiles returns all profiles in the order in which they are tried. The slice is
// the caller's, what it points to is not.
func Profiles() []Profile { return slices.Clone(profiles()) }

// profiles reads the table that is built in, once.
var profiles = sync.OnceValue(func() []Profile {
	all, err := parseProfiles(profilesYAML)
	if err != nil {
		panic(err) // a bug here: a test reads the same bytes
	}
	return all
})

// errProfiles means that a table of profiles is not as profiles.yaml says.
var errProfiles = errors.New("profiles invalid")

// parseProfiles reads a table strictly: errProfiles.
func parseProfiles(text []byte) ([]Profile, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	var all []Profile
	if err := decoder.Decode(&all); err != nil {
		return nil, fmt.Errorf("%w: %w", errProfiles, err)
	}
	if err := decoder.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: more than one document", errProfiles)
	}
	seen := map[string]bool{}
	for i := range all {
		p := &all[i]
		if err := p.check(); err != nil {
			return nil, fmt.Errorf("%w: profile %q: %w", errProfiles, p.Name, err)
		}
		if seen[p.Name] {
			return nil, fmt.Errorf("%w: profile %q stands there twice", errProfiles, p.Name)
		}
		seen[p.Name] = true
	}
	if len(all) == 0 || !slices.Contains(all[len(all)-1].Match, Match{}) {
		return nil, fmt.Errorf("%w: the last profile does not match everything", errProfiles)
	}
	return all, nil
}

// check says what is wrong with a profile.
func (p *Profile) check() error {
	checks := []error{
		want("name", p.Name != ""), want("title", p.Title != ""), want("match", len(p.Match) > 0),
		sourced("root_wrap", p.RootWrap), sourced("gcm_iv", p.GCMIV), sourced("value_len", p.ValueLen),
		sourced("ecdsa", p.ECDSA), sourced("oaep_hashes", p.OAEPHashes), sourced("pin", p.PIN),
		sourced("max_sessions", p.MaxSessions), sourced("init_args", p.InitArgs), sourced("changes", p.Changes),
		oneOf("gcm_iv", gcmIVs, p.GCMIV.Is), oneOf("value_len", valueLens, p.ValueLen.Is),
		sourced("uses", p.Uses), oneOf("uses", uses, p.Uses.Is),
		oneOf("ecdsa", ecdsas, p.ECDSA.Is), oneOf("init_args", initArgs, p.InitArgs.Is), oneOf("changes", changes, p.Changes.Is),
		oneOf("oaep_hashes", oaepHashes, p.OAEPHashes.Is...),
		want("pin.is", p.PIN.Is != ""),
		want("max_sessions.is from 0 on", p.MaxSessions.Is >= 0 && p.MaxSessions.Is <= maxSessions),
	}
	for _, m := range p.Match {
		_, err := path.Match(m.Module, "")
		checks = append(checks, err)
	}
	for _, note := range p.Notes {
		checks = append(checks, sourced("notes", note), want("notes.is", note.Is != ""))
	}
	return errors.Join(checks...)
}

func want(field string, ok bool) error {
	if ok {
		return nil
	}
	return fmt.Errorf("want %s", field)
}

func sourced[T any](field string, f Fact[T]) error { return want(field+".from", f.From != "") }

func oneOf[T comparable](field string, allowed []T, values ...T) error {
	for i, v := range values {
		if !slices.Contains(allowed, v) || slices.Contains(values[:i], v) {
			return fmt.Errorf("%s has %v: want each of %v at most once", field, v, allowed)
		}
	}
	return nil
}

// profileOf asks the module about itself, and returns the profile that fits it and
// the token.
func profileOf(m *cryptoki.Module, token cryptoki.Token) (Profile, error) {
	library, err := m.Library()
	if err != nil {
		return Profile{}, err
	}
	return recognise(m.Path, LibraryInfo(library), newTokenInfo(token)), nil
}

// recognise returns the first profile that fits, at last the default.
func recognise(module string, library LibraryInfo, token TokenInfo) Profile {
	for _, p := range profiles() {
		for _, m := range p.Match {
			if m.fits(module, library, token) {
				return p
			}
		}
	}
	panic("hsm: no default profile") // parseProfiles saw one
}

func (m Match) fits(module string, library LibraryInfo, token TokenInfo) bool {
	if m.Module != "" {
		if ok, _ := path.Match(m.Module, filepath.Base(module)); !ok {
			return false
		}
	}
	return strings.HasPrefix(library.Manufacturer, m.LibraryManufacturer) &&
		strings.HasPrefix(token.Manufacturer, m.TokenManufacturer) &&
		strings.HasPrefix(token.Model, m.TokenModel)
}
