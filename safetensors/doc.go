// Package safetensors reads and writes safetensors files of any size.
//
// A file is an 8-byte little-endian length, a JSON header of that many bytes,
// and the data section: the bodies of the tensors, one after the other,
// little-endian and row-major. [ReadHeader] and [Open] read the header only and
// prove it against the size of the file; bodies are then read by section.
// [NewHeader] lays tensors out and a [Writer] puts their bodies at their final
// offsets, so that no tensor has to be in memory whole.
//
// The bytes written are the bytes that the reference implementation (0.8) writes
// for the same tensors. Two points differ on purpose: metadata keys are sorted,
// where the reference leaves their order to chance, and empty metadata without
// any tensor is written as valid JSON, which the reference fails to do.
//
// Reading is stricter than the reference: duplicate keys, unknown fields and
// null metadata are refused.
package safetensors
