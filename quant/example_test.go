package quant_test

import (
	"fmt"
	"log"

	"github.com/tensorpress/tensorpress/quant"
	"github.com/tensorpress/tensorpress/storage"
)

// Four bits a value, a scale and a zero point for every four values.
func ExampleQuantize() {
	weight := []float32{0, 1, 2, 15, -1, -1, -1, -1}
	q, err := quant.Quantize(weight, []int{2, 4}, storage.Settings{Dtype: "uint4", GroupSize: new(4)})
	if err != nil {
		log.Fatal(err)
	}
	for _, t := range q.Tensors {
		fmt.Println(t.Role, t.Dtype, t.Shape, len(t.Data))
	}
	restored, err := quant.Dequantize(q)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(restored)
	// Output:
	// weight U8 [4] 4
	// scale F32 [2 1] 8
	// zero_point F32 [2 1] 8
	// [0 1 2 15 -1 -1 -1 -1]
}

// ComfyUI's formats have names of their own.
func ExampleQuantize_comfyUI() {
	weight := make([]float32, 16*16)
	for i := range weight {
		weight[i] = float32(i%16) - 8
	}
	q, err := quant.Quantize(weight, []int{16, 16}, storage.Settings{Dtype: "nvfp4"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(q.Metadata))
	for _, t := range q.Tensors {
		fmt.Println(t.Role, t.Dtype, t.Shape)
	}
	// Output:
	// {"format": "nvfp4", "orig_dtype": "torch.bfloat16"}
	// weight U8 [16 8]
	// scale F8_E4M3 [128 4]
	// scale_2 F32 []
}

// Three bits a code: eight codes in three bytes.
func ExamplePack() {
	packed := quant.Pack([]uint16{0, 1, 2, 3, 4, 5, 6, 7}, 3)
	fmt.Println(quant.PackedTogether(3), len(packed), quant.Unpack(packed, 8, 3))
	// Output: 8 3 [0 1 2 3 4 5 6 7]
}
