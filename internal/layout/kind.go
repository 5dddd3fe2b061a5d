package layout

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/tile"
)

// kind is what all layers with the same description share. A model of many experts has
// a hundred thousand layers of a few kinds: what they share is made and stored once, so
// it must not be changed.
type kind struct {
	options pyjson.Object
	codecs  map[string]*opened // by storedKey
}

type opened struct {
	codec   codec.Codec
	options pyjson.Object // set if only the tensors show them
	dtype   string        // likewise
	err     error
}

// kinds are the kinds of a checkpoint by their descriptions.
type kinds map[string]*kind

// of returns the kind with the description text. It calls parse if the kind is new.
func (k kinds) of(text string, parse func() (pyjson.Object, error)) (*kind, error) {
	if known, ok := k[text]; ok {
		return known, nil
	}
	options, err := parse()
	if err != nil {
		return nil, err
	}
	one := &kind{options: options, codecs: map[string]*opened{}}
	k[text] = one
	return one, nil
}

// described returns the kind with these options.
func (k kinds) described(options pyjson.Object) *kind {
	one, _ := k.of(pyjson.Dump(options), func() (pyjson.Object, error) { return options, nil })
	return one
}

// open returns what all layers that are stored in the same way share. It calls open for
// the first of them.
func (k *kind) open(s *codec.Stored, open func() opened) *opened {
	key := storedKey(s)
	one, ok := k.codecs[key]
	if !ok {
		made := open()
		one = &made
		k.codecs[key] = one
	}
	return one
}

// storedKey returns a key that is equal for layers with the same dtypes and shapes.
func storedKey(s *codec.Stored) string {
	var room [256]byte
	key := appendShape(room[:0], s.Hint)
	for _, role := range storedRoles {
		if t, ok := s.Tensors[role]; ok {
			key = append(key, role...)
			key = appendShape(append(key, 0, byte(t.Dtype)), t.Shape)
		}
	}
	return string(key)
}

func appendShape(key []byte, shape []int) []byte {
	key = binary.AppendVarint(key, int64(len(shape)))
	for _, n := range shape {
		key = binary.AppendVarint(key, int64(n))
	}
	return key
}

// storedRoles are all roles that layouts have names for.
var storedRoles = func() (roles []tile.Role) {
	known := maps.Clone(Comfy.suffixes)
	for _, p := range publications {
		maps.Copy(known, p.suffixes)
	}
	return slices.Sorted(maps.Keys(known))
}()
