package kms

import (
	"context"
	"encoding/base64"

	"github.com/keywright/keywright/kms/internal/domain"
	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
)

const (
	defaultPage = 100
	maxPage     = 1000
)

// listing is one page of answers and the token of the next.
type listing[T any] struct {
	items []T
	next  string
}

func performList[Q, T any](ctx context.Context, s *Service, call Call, action policy.Action, q Q,
	act func(*Service, context.Context, *trace, Q) (listing[T], error)) ([]T, string, error) {
	page, err := perform(ctx, s, call, action, q, act)
	return page.items, page.next, err
}

// list reads one page of the records below prefix. keep turns a record into an
// answer, or leaves it out. A page token is the opaque cursor of the store.
func list[R, T any](ctx context.Context, s *Service, d *domain.Domain, prefix string, size int, pageToken string,
	keep func(stored[R]) (T, bool, error)) (listing[T], error) {
	if size < 0 || size > maxPage {
		return listing[T]{}, invalid("page_size", "is %d; use 1 to %d, or 0 for %d", size, maxPage, defaultPage)
	}
	if size == 0 {
		size = defaultPage
	}
	after, err := openPageToken(prefix, pageToken)
	if err != nil {
		return listing[T]{}, err
	}
	page, err := s.store.List(ctx, prefix, after, size)
	if err != nil {
		return listing[T]{}, storeError(err)
	}
	out := listing[T]{next: base64.RawURLEncoding.EncodeToString([]byte(page.Next))}
	for _, record := range page.Records {
		r, err := decodeNow[R](ctx, s, d, record)
		if err != nil {
			return listing[T]{}, err
		}
		item, kept, err := keep(r)
		if err != nil {
			return listing[T]{}, err
		}
		if kept {
			out.items = append(out.items, item)
		}
	}
	return out, nil
}

func openPageToken(prefix, pageToken string) (string, error) {
	if pageToken == "" {
		return "", nil
	}
	b, err := base64.RawURLEncoding.DecodeString(pageToken)
	if err != nil || len(b) == 0 || store.CheckList(prefix, string(b)) != nil {
		return "", invalid("page_token", "is not one that an earlier page returned; start again without it")
	}
	return string(b), nil
}
