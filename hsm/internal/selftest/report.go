// Package selftest finds out by trying what a token really does, whatever its list
// of mechanisms says: it makes keys, uses them, checks the results in software and
// removes them again. It tries no PIN, and keeps nothing on the token.
//
// A Tester belongs to one goroutine.
package selftest

// Report is what was found out about a token.
type Report struct {
	SessionObjects Trait        `json:"session_objects"` // whether keys can be made that no token keeps
	Algorithms     []Algorithm  `json:"algorithms"`      // in the order of Keywright's table
	RootWrap       []Mechanism  `json:"root_wrap"`       // ways to protect a root key
	OAEPHashes     []string     `json:"oaep_hashes"`     // such as "SHA256"
	GCM            *GCM         `json:"gcm,omitempty"`   // nil if the token has no AES-GCM
	KeyWrap        *KeyWrap     `json:"key_wrap,omitempty"`
	DuplicateIDs   Trait        `json:"duplicate_ids"` // two objects with one CKA_ID
	Random         Trait        `json:"random"`
	Sessions       SessionLimit `json:"sessions"`
	Origin         Origin       `json:"origin"`
}

// Trait is a behaviour: whether it is there, and what was seen.
type Trait struct {
	Yes    bool   `json:"yes"`
	Detail string `json:"detail,omitempty"`
}

// Algorithm is a row of Keywright's table on this token.
type Algorithm struct {
	Name    string `json:"name"`
	Claimed bool   `json:"claimed"` // by the list of mechanisms
	Works   bool   `json:"works"`
	Detail  string `json:"detail,omitempty"` // why it does not work
}

// Mechanism is a way to protect a root key on this token.
type Mechanism struct {
	Name    string `json:"name"` // as vendor profiles call it
	Claimed bool   `json:"claimed"`
	Works   bool   `json:"works"`
	Detail  string `json:"detail,omitempty"`
}

// GCM is how the token does AES-GCM.
type GCM struct {
	IV        string `json:"iv"`         // ours, parameter or appended, as profiles have it
	MissingIV string `json:"missing_iv"` // what happens without an IV
	BadTag    string `json:"bad_tag"`    // return value for a forged ciphertext
	AskSize   Trait  `json:"ask_size"`   // whether the output's size can be asked for
}

// KeyWrap is how the token does CKM_AES_KEY_WRAP.
type KeyWrap struct {
	Encrypt  Trait  `json:"encrypt"`   // C_Encrypt of bytes
	Wrap     Trait  `json:"wrap"`      // C_WrapKey of a key object
	ValueLen string `json:"value_len"` // CKA_VALUE_LEN at C_UnwrapKey: required, refused, any
}

// SessionLimit is how many sessions there can be; 0 is no limit stated.
type SessionLimit struct {
	Stated int    `json:"stated"`
	Opened int    `json:"opened"` // at once, without trying more than MaxSessions
	Detail string `json:"detail,omitempty"`
}

// Origin tells which attributes of origin the token keeps.
type Origin struct {
	Local            bool `json:"local"`
	NeverExtractable bool `json:"never_extractable"`
	AlwaysSensitive  bool `json:"always_sensitive"`
}

// MaxSessions is how many sessions a test opens at most.
const MaxSessions = 64
