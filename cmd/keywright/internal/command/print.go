package command

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/keywright/keywright/cmd/keywright/internal/ui"
)

// MaxPage is the most that a server lists at once.
const MaxPage = 1000

// Describe prints one item.
func Describe[T proto.Message](a *App, columns []ui.Column[T], item T) error {
	if a.JSON() {
		return ui.JSON(a.Out, item)
	}
	return ui.Describe(a.Out, columns, item)
}

// List prints items.
func List[T proto.Message](a *App, columns []ui.Column[T], items []T) error {
	if a.JSON() {
		return ui.JSONList(a.Out, items)
	}
	return ui.List(a.Out, columns, items)
}

// ListPages collects all pages that fetch returns and prints them.
func ListPages[T proto.Message](ctx context.Context, a *App, columns []ui.Column[T], fetch func(ctx context.Context, token string) ([]T, string, error)) error {
	var all []T
	for token, more := "", true; more; more = token != "" {
		page, next, err := fetch(ctx, token)
		if err != nil {
			return err
		}
		all, token = append(all, page...), next
	}
	return List(a, columns, all)
}
