package token

import (
	"fmt"
	"time"
	"unicode/utf8"
)

// Statement is what a token says. It holds no secret: who only knows the
// statement cannot make the token.
type Statement struct {
	Installation [16]byte
	Epoch        uint32   // which of the installation's signers signed it
	ID           [16]byte // random, never reused
	// Origin stands for the principal that made the first token of the chain
	// without a token: OriginOf; zero for none.
	Origin [16]byte
	Bearer
	Issued  time.Time
	Expires time.Time // after Issued; both count whole seconds from 1970 on
	// Renewable makes the token a lease: it is valid while a stored record says
	// so, at most until Expires.
	Renewable bool
	// Once makes it valid for one call. Such a token has no ancestors and no
	// children, and is no lease.
	Once bool
	// Ancestors are the tokens that this one was made with, nearest first. What
	// ends, revokes or bounds one of them does the same to this token.
	Ancestors []Link
}

// Bearer is whom a token speaks for, and what it is narrowed to: actions and
// roles, namespaces ("payments") and keys ("payments/card"). An empty list does
// not narrow.
type Bearer struct {
	Principal string   // 1 to MaxName bytes of UTF-8
	Groups    []string // at most MaxGroups of 1 to MaxName bytes of UTF-8, in the order given
	Actions   []string // at most MaxActions, likewise
	Resources []string // at most MaxResources of 1 to MaxResource bytes of UTF-8
}

// Link is an ancestor of a token.
type Link struct {
	ID [16]byte
	Bearer
	Issued    time.Time
	Renewable bool
}

// Link returns what a child of the token says of it.
func (s Statement) Link() Link {
	return Link{ID: s.ID, Bearer: s.Bearer, Issued: s.Issued, Renewable: s.Renewable}
}

// check reports how s breaks the limits: an ErrStatement.
func (s Statement) check() error {
	if len(s.Ancestors) > MaxAncestors {
		return fmt.Errorf("%w: there may be at most %d ancestors", ErrStatement, MaxAncestors)
	}
	if err := s.Bearer.check(); err != nil {
		return err
	}
	for _, link := range s.Ancestors {
		if err := link.Bearer.check(); err != nil {
			return err
		}
		if link.Issued.Unix() < 0 || link.Issued.Unix() > maxTime {
			return fmt.Errorf("%w: an ancestor must be issued after 1970 and before the year 10000", ErrStatement)
		}
	}
	if s.Once && (s.Renewable || len(s.Ancestors) > 0) {
		return fmt.Errorf("%w: a token that works once has no ancestors and is not renewable", ErrStatement)
	}
	if s.Issued.Unix() < 0 || s.Expires.Unix() <= s.Issued.Unix() || s.Expires.Unix() > maxTime {
		return fmt.Errorf("%w: it must be issued after 1970 and expire after that, before the year 10000", ErrStatement)
	}
	return nil
}

func (b Bearer) check() error {
	if !validText(b.Principal, MaxName) {
		return fmt.Errorf("%w: the principal must be 1 to %d bytes of UTF-8", ErrStatement, MaxName)
	}
	for _, list := range []struct {
		what          string
		texts         []string
		most, longest int
	}{
		{"groups", b.Groups, MaxGroups, MaxName},
		{"actions", b.Actions, MaxActions, MaxName},
		{"resources", b.Resources, MaxResources, MaxResource},
	} {
		if len(list.texts) > list.most {
			return fmt.Errorf("%w: there may be at most %d %s", ErrStatement, list.most, list.what)
		}
		for _, text := range list.texts {
			if !validText(text, list.longest) {
				return fmt.Errorf("%w: each of the %s must be 1 to %d bytes of UTF-8", ErrStatement, list.what, list.longest)
			}
		}
	}
	return nil
}

func validText(text string, longest int) bool {
	return text != "" && len(text) <= longest && utf8.ValidString(text)
}
