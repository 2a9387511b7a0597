package kms

import (
	"errors"
	"fmt"
	"time"

	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/token"
)

// checkToken reports what is wrong with a request for a token, whoever makes it.
func checkToken(q CreateTokenRequest) error {
	if err := checkName("principal", q.Principal); err != nil {
		return err
	}
	if q.Principal == bootstrapName {
		return invalid("principal", "%q is reserved for the token that init makes; choose another name", bootstrapName)
	}
	if err := errors.Join(checkTTL(q.TTL, q.RenewableFor), checkTexts(q)); err != nil {
		return err
	}
	return narrowingError(policy.CheckNarrowing(q.Actions, q.Resources))
}

func checkTTL(ttl, renewableFor time.Duration) error {
	longest := MaxTokenTTL
	if renewableFor != 0 {
		longest = MaxLeaseTTL
	}
	switch {
	case ttl != 0 && (ttl < MinTokenTTL || ttl > longest):
		return invalid("ttl", "is %s; use %s to %s, or leave it out for %s", ttl, MinTokenTTL, longest, DefaultTokenTTL)
	case renewableFor != 0 && (renewableFor < MinTokenTTL || renewableFor > MaxLease):
		return invalid("renewable_for", "is %s; use %s to %s, or leave it out for a token that is not renewed", renewableFor, MinTokenTTL, MaxLease)
	case renewableFor != 0 && ttl > renewableFor:
		return invalid("ttl", "is %s, longer than renewable_for, %s; make it shorter, or leave it out", ttl, renewableFor)
	}
	return nil
}

func checkTexts(q CreateTokenRequest) error {
	for _, list := range []struct {
		field string
		n     int
		most  int
	}{{"groups", len(q.Groups), token.MaxGroups}, {"actions", len(q.Actions), token.MaxActions}, {"resources", len(q.Resources), token.MaxResources}} {
		if list.n > list.most {
			return invalid(list.field, "has %d entries, the limit is %d", list.n, list.most)
		}
	}
	for _, group := range q.Groups {
		if err := checkName("groups", group); err != nil {
			return err
		}
	}
	return nil
}

// checkParent reports what the caller's own token does not let its child have.
func checkParent(caller *policy.Caller, q CreateTokenRequest, now time.Time) error {
	parent := parentOf(caller)
	if parent == nil {
		return nil
	}
	if parent.Token.Once {
		return precondition("TOKEN_WORKS_ONCE", "a token that works once makes no others; give your own principal a policy with it, and make tokens as that")
	}
	depth := 0
	for ancestor := parent; ancestor != nil; ancestor = ancestor.Parent {
		if err := policy.Within(&policy.Caller{Actions: q.Actions, Resources: q.Resources}, ancestor); err != nil {
			return narrowingError(err)
		}
		depth++
	}
	if depth > token.MaxAncestors {
		return precondition("TOKEN_TOO_DEEP", "the token that this one is made with descends from %d others, the most there may be; make it with one of those", token.MaxAncestors)
	}
	return errors.Join(checkEnd("ttl", q.TTL, now, parent.Token.End), checkEnd("renewable_for", q.RenewableFor, now, parent.Token.End))
}

// checkEnd refuses what is asked for beyond the parent's end; what is left out is
// capped instead.
func checkEnd(field string, asked time.Duration, now, parentEnd time.Time) error {
	if asked == 0 || !now.Add(asked).After(parentEnd) {
		return nil
	}
	return invalid(field, "is %s, but the token that this one is made with ends at %s; ask for at most %s, or leave ttl out",
		asked, parentEnd.Format(time.RFC3339), parentEnd.Sub(now).Truncate(time.Second))
}

func narrowingError(err error) error {
	var bad *policy.InvalidNarrowing
	if !errors.As(err, &bad) {
		return err
	}
	return &Error{Code: InvalidArgument, Reason: "INVALID_FIELD", Field: bad.Field, Message: fmt.Sprintf("%s: %s; %s", bad.Field, bad.Problem, bad.Advice)}
}
