package convert

import (
	"context"
	"errors"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/bundle"
	"github.com/tensorpress/tensorpress/internal/source"
)

// opened is a source that several outputs are made of: what one has opened of it, the
// others read too. A nil opened is for one output.
type opened struct {
	from    *source.Source
	bundles map[string]*bundle.Bundle // by path
}

// source returns the source's files.
func (o *opened) source(ctx context.Context, from files.Source) source.Source {
	if o == nil {
		return source.Of(ctx, from)
	}
	if o.from == nil {
		o.from = new(source.Of(ctx, from))
		source.Share(o.from.Tree)
	}
	return *o.from
}

// models opens the models of a source, each once, unless like says which they are.
func (o *opened) models(s source.Source, like *source.Source) (*bundle.Bundle, error) {
	if o == nil || like != nil {
		return bundle.ReadModels(s, like)
	}
	if o.bundles[s.Path] == nil {
		m, err := bundle.ReadModels(s, nil)
		if err != nil {
			return nil, err
		}
		if o.bundles == nil {
			o.bundles = map[string]*bundle.Bundle{}
		}
		o.bundles[s.Path] = m
	}
	return o.bundles[s.Path].Again(), nil
}

// Close closes the source's files.
func (o *opened) Close() error {
	var err error
	for _, m := range o.bundles {
		err = errors.Join(err, m.Close())
	}
	return err
}
