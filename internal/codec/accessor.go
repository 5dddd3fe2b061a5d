package codec

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/tensorpress/tensorpress/storage"
)

// accessor reads and writes one setting, both among the settings in effect and among
// those that a user gave.
type accessor interface {
	get(s *Settings) any           // a string, an int or a bool
	set(s *Settings, v any) bool   // false where v is of another type
	unusual(s *Settings) bool      // neither nothing nor the default
	reset(s *Settings)             // to the default
	Said(g *storage.Settings) bool // whether anything was said
	take(s *Settings, g *storage.Settings)
	tell(g *storage.Settings, s *Settings)
	said(g *storage.Settings) any         // nil where nothing was
	copy(to, from *storage.Settings)      // what was said
	putDefault(g *storage.Settings) error // where it can be said
	put(g *storage.Settings, v any)       // of the setting's type
	parse(g *storage.Settings, flag, text string, hasText bool) error
}

// errUnsayable is that of a text that means nothing where it is empty.
var errUnsayable = errors.New("cannot be taken back")

// typed is the accessor of a setting of one type. Its methods are called for every
// layer, so they avoid boxing values in interfaces.
type typed[T string | int | bool] struct {
	at    func(*Settings) *T
	given func(*storage.Settings) *T // nil where nothing was said
	say   func(*storage.Settings, T)
}

// value is the accessor of a setting that is nil if it was not given.
func value[T int | bool](at func(*Settings) *T, given func(*storage.Settings) **T) accessor {
	return typed[T]{at, func(g *storage.Settings) *T { return *given(g) }, func(g *storage.Settings, v T) { *given(g) = &v }}
}

// text is the accessor of a setting that is "" if it was not given.
func text(at func(*Settings) *string, given func(*storage.Settings) *string) accessor {
	said := func(g *storage.Settings) *string {
		if p := given(g); *p != "" {
			return p
		}
		return nil
	}
	return typed[string]{at, said, func(g *storage.Settings, v string) { *given(g) = v }}
}

// rankSetting is the accessor of a rank, of which some formats have one where none is given:
// 0 is another thing there than nothing.
type rankSetting struct{ accessor }

func (r rankSetting) take(s *Settings, g *storage.Settings) {
	if r.accessor.take(s, g); r.Said(g) {
		s.NoRank = s.SVDRank == 0
	}
}

func (r rankSetting) reset(s *Settings) {
	r.accessor.reset(s)
	s.NoRank = false
}

func (p typed[T]) get(s *Settings) any { return *p.at(s) }

func (p typed[T]) set(s *Settings, v any) (ok bool) {
	*p.at(s), ok = v.(T)
	return ok
}

func (p typed[T]) unusual(s *Settings) bool {
	var nothing T
	v := *p.at(s)
	return v != nothing && v != *p.at(&defaults)
}

func (p typed[T]) reset(s *Settings) { *p.at(s) = *p.at(&defaults) }

func (p typed[T]) Said(g *storage.Settings) bool { return p.given(g) != nil }

func (p typed[T]) take(s *Settings, g *storage.Settings) {
	if v := p.given(g); v != nil {
		*p.at(s) = *v
	}
}

func (p typed[T]) said(g *storage.Settings) any {
	if v := p.given(g); v != nil {
		return *v
	}
	return nil
}

func (p typed[T]) copy(to, from *storage.Settings) {
	if v := p.given(from); v != nil {
		p.say(to, *v)
	}
}

func (p typed[T]) putDefault(g *storage.Settings) error {
	if p.say(g, *p.at(&defaults)); !p.Said(g) {
		return errUnsayable
	}
	return nil
}

func (p typed[T]) tell(g *storage.Settings, s *Settings) { p.say(g, *p.at(s)) }

func (p typed[T]) put(g *storage.Settings, v any) { p.say(g, v.(T)) }

func (p typed[T]) parse(g *storage.Settings, flag, text string, hasText bool) error {
	v, err := parse(any(*new(T)), flag, text, hasText)
	if err == nil {
		p.put(g, v)
	}
	return err
}

// parse reads a value of the type of like.
func parse(like any, flag, text string, hasText bool) (any, error) {
	switch like.(type) {
	case bool:
		if !hasText {
			return true, nil
		}
		b, err := strconv.ParseBool(text)
		if err != nil {
			return nil, fmt.Errorf("%s=%s: want true or false", flag, text)
		}
		return b, nil
	case int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return nil, fmt.Errorf("%s %q is not a whole number", flag, text)
		}
		return n, nil
	}
	if text == "" {
		return nil, fmt.Errorf("%s wants a value", flag)
	}
	return text, nil
}
