package layout

import (
	"encoding/binary"

	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/tile"
)

// kind is what layers of the same description have in common. A model of many
// experts has a hundred thousand layers and a few kinds: what they share is
// made once and takes memory once, so nothing may change it.
type kind struct {
	options pyjson.Object
	codecs  map[string]*opened // by what the layers are stored as
}

type opened struct {
	codec   codec.Codec
	options pyjson.Object // where tensors alone tell them
	err     error
}

// kinds are those of a checkpoint, by their descriptions.
type kinds map[string]*kind

// of returns the kind that text describes; parse is called where it is new.
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

// described is of for options that are parsed already.
func (k kinds) described(options pyjson.Object) *kind {
	one, _ := k.of(pyjson.Dump(options), func() (pyjson.Object, error) { return options, nil })
	return one
}

// open returns what is known of a layer that is stored so; open is called where
// it is the first.
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

// storedKey is the same for what is stored in the same dtypes and shapes.
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

// storedRoles are all roles that a layout names.
var storedRoles = func() (roles []tile.Role) {
	for role := range Comfy.suffixes {
		roles = append(roles, role)
	}
	return roles
}()
