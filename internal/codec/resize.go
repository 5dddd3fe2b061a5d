package codec

import (
	"encoding/json"
	"strconv"

	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/tile"
)

// Resized is what differs between a layer and one that is made of its rows, or of it and
// others like it.
type Resized struct {
	Source         // of the weight
	Rank   int     // of the low-rank part
	PerRow bool    // what was one for all rows is one for each
	Format *Format // in which both are stored
	// Tensors are what is stored.
	Tensors map[tile.Role]tile.Tensor
}

// Open returns the codec of the layer, and its description: that of c, which metadata
// describes in the comfy layout, or a config elsewhere if described is false.
func (r Resized) Open(c Codec, metadata pyjson.Object, described bool) (Codec, pyjson.Object, error) {
	scheme := Scheme(c)
	if scheme != nil && !described {
		text := pyjson.Dump(sdnqMetadata(scheme, r.Source))
		o, err := pyjson.ParseObject([]byte(text)) // as it is read
		if err != nil {
			return nil, nil, err
		}
		metadata = o
	}
	if _, ok := metadata.Get("orig_shape"); ok {
		metadata = metadata.Set("orig_shape", numbersOf(r.Shape))
	}
	switch {
	case scheme != nil && r.PerRow:
		metadata = metadata.Set("group_size", numberOf(-1))
	case r.PerRow:
		metadata = metadata.Set("per_row", true)
	}
	if scheme != nil && r.Rank > 0 && r.Rank != scheme.Rank {
		metadata = metadata.Set("use_svd", true).Set("svd_rank", numberOf(r.Rank))
	}
	opened, err := r.Format.OpenAs(&Stored{Metadata: metadata, Tensors: r.Tensors, Hint: r.Shape})
	return opened, metadata, err
}

func numberOf(n int) json.Number { return json.Number(strconv.Itoa(n)) }

func numbersOf(list []int) (numbers []any) {
	for _, n := range list {
		numbers = append(numbers, numberOf(n))
	}
	return numbers
}
