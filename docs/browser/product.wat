;; C += A B for float32 matrices, four rows by eight columns at a time.
;; A (m, k) and B (k, n) have any strides, in bytes; C (m, n) is contiguous. Eight columns of B are copied to
;; "panel", 8 k + 8 numbers, of which the last eight are for tiles at the right edge.
(module
  (import "env" "memory" (memory 0))

  ;; the eight numbers x, y are added to the first "width" of c
  (func $add (param $c i32) (param $width i32) (param $edge i32) (param $x v128) (param $y v128)
    (if (i32.eq (local.get $width) (i32.const 8))
      (then
        (v128.store (local.get $c) (f32x4.add (v128.load (local.get $c)) (local.get $x)))
        (v128.store offset=16 (local.get $c) (f32x4.add (v128.load offset=16 (local.get $c)) (local.get $y)))
        (return)))
    (v128.store (local.get $edge) (local.get $x))
    (v128.store offset=16 (local.get $edge) (local.get $y))
    (loop $next
      (f32.store (local.get $c) (f32.add (f32.load (local.get $c)) (f32.load (local.get $edge))))
      (local.set $c (i32.add (local.get $c) (i32.const 4)))
      (local.set $edge (i32.add (local.get $edge) (i32.const 4)))
      (br_if $next (local.tee $width (i32.sub (local.get $width) (i32.const 1))))))

  (func (export "product")
    (param $a i32) (param $a_row i32) (param $a_column i32)
    (param $b i32) (param $b_row i32) (param $b_column i32)
    (param $c i32) (param $panel i32) (param $m i32) (param $k i32) (param $n i32)
    (local $width i32) (local $i i32) (local $j i32) (local $p i32) (local $q i32) (local $end i32)
    (local $left i32) (local $to i32) (local $c_row i32)
    (local $a0 i32) (local $a1 i32) (local $a2 i32) (local $a3 i32)
    (local $x v128) (local $y v128) (local $s v128)
    (local $x0 v128) (local $x1 v128) (local $x2 v128) (local $x3 v128)
    (local $y0 v128) (local $y1 v128) (local $y2 v128) (local $y3 v128)
    (local.set $c_row (i32.shl (local.get $n) (i32.const 2)))
    (local.set $end (i32.add (local.get $panel) (i32.shl (local.get $k) (i32.const 5))))
    (loop $columns
      (local.set $width (select (i32.const 8) (local.get $n) (i32.gt_s (local.get $n) (i32.const 8))))

      ;; eight columns of B
      (local.set $p (local.get $panel))
      (local.set $q (local.get $b))
      (loop $copy
        (local.set $j (i32.const 0))
        (local.set $to (local.get $q))
        (v128.store (local.get $p) (v128.const i32x4 0 0 0 0))
        (v128.store offset=16 (local.get $p) (v128.const i32x4 0 0 0 0))
        (loop $entry
          (f32.store (i32.add (local.get $p) (i32.shl (local.get $j) (i32.const 2))) (f32.load (local.get $to)))
          (local.set $to (i32.add (local.get $to) (local.get $b_column)))
          (br_if $entry
            (i32.lt_s (local.tee $j (i32.add (local.get $j) (i32.const 1))) (local.get $width))))
        (local.set $q (i32.add (local.get $q) (local.get $b_row)))
        (br_if $copy (i32.lt_u (local.tee $p (i32.add (local.get $p) (i32.const 32))) (local.get $end))))

      ;; times four rows of A; where fewer are left, the last stands in for the missing
      (local.set $i (i32.const 0))
      (local.set $to (local.get $c))
      (loop $rows
        (local.set $left (i32.sub (local.get $m) (local.get $i)))
        (local.set $a0 (i32.add (local.get $a) (i32.mul (local.get $i) (local.get $a_row))))
        (local.set $a1 (i32.add (local.get $a0)
          (select (local.get $a_row) (i32.const 0) (i32.gt_s (local.get $left) (i32.const 1)))))
        (local.set $a2 (i32.add (local.get $a1)
          (select (local.get $a_row) (i32.const 0) (i32.gt_s (local.get $left) (i32.const 2)))))
        (local.set $a3 (i32.add (local.get $a2)
          (select (local.get $a_row) (i32.const 0) (i32.gt_s (local.get $left) (i32.const 3)))))
        (local.set $x0 (v128.const i32x4 0 0 0 0)) (local.set $y0 (v128.const i32x4 0 0 0 0))
        (local.set $x1 (v128.const i32x4 0 0 0 0)) (local.set $y1 (v128.const i32x4 0 0 0 0))
        (local.set $x2 (v128.const i32x4 0 0 0 0)) (local.set $y2 (v128.const i32x4 0 0 0 0))
        (local.set $x3 (v128.const i32x4 0 0 0 0)) (local.set $y3 (v128.const i32x4 0 0 0 0))
        (local.set $p (local.get $panel))
        (loop $sum
          (local.set $x (v128.load (local.get $p)))
          (local.set $y (v128.load offset=16 (local.get $p)))
          (local.set $s (v128.load32_splat (local.get $a0)))
          (local.set $x0 (f32x4.add (local.get $x0) (f32x4.mul (local.get $s) (local.get $x))))
          (local.set $y0 (f32x4.add (local.get $y0) (f32x4.mul (local.get $s) (local.get $y))))
          (local.set $s (v128.load32_splat (local.get $a1)))
          (local.set $x1 (f32x4.add (local.get $x1) (f32x4.mul (local.get $s) (local.get $x))))
          (local.set $y1 (f32x4.add (local.get $y1) (f32x4.mul (local.get $s) (local.get $y))))
          (local.set $s (v128.load32_splat (local.get $a2)))
          (local.set $x2 (f32x4.add (local.get $x2) (f32x4.mul (local.get $s) (local.get $x))))
          (local.set $y2 (f32x4.add (local.get $y2) (f32x4.mul (local.get $s) (local.get $y))))
          (local.set $s (v128.load32_splat (local.get $a3)))
          (local.set $x3 (f32x4.add (local.get $x3) (f32x4.mul (local.get $s) (local.get $x))))
          (local.set $y3 (f32x4.add (local.get $y3) (f32x4.mul (local.get $s) (local.get $y))))
          (local.set $a0 (i32.add (local.get $a0) (local.get $a_column)))
          (local.set $a1 (i32.add (local.get $a1) (local.get $a_column)))
          (local.set $a2 (i32.add (local.get $a2) (local.get $a_column)))
          (local.set $a3 (i32.add (local.get $a3) (local.get $a_column)))
          (br_if $sum (i32.lt_u (local.tee $p (i32.add (local.get $p) (i32.const 32))) (local.get $end))))
        (local.set $q (local.get $to))
        (call $add (local.get $q) (local.get $width) (local.get $end) (local.get $x0) (local.get $y0))
        (if (i32.gt_s (local.get $left) (i32.const 1)) (then
          (call $add (local.tee $q (i32.add (local.get $q) (local.get $c_row)))
            (local.get $width) (local.get $end) (local.get $x1) (local.get $y1))))
        (if (i32.gt_s (local.get $left) (i32.const 2)) (then
          (call $add (local.tee $q (i32.add (local.get $q) (local.get $c_row)))
            (local.get $width) (local.get $end) (local.get $x2) (local.get $y2))))
        (if (i32.gt_s (local.get $left) (i32.const 3)) (then
          (call $add (local.tee $q (i32.add (local.get $q) (local.get $c_row)))
            (local.get $width) (local.get $end) (local.get $x3) (local.get $y3))))
        (local.set $to (i32.add (local.get $q) (local.get $c_row)))
        (br_if $rows (i32.lt_s (local.tee $i (i32.add (local.get $i) (i32.const 4))) (local.get $m))))

      (local.set $b (i32.add (local.get $b) (i32.shl (local.get $b_column) (i32.const 3))))
      (local.set $c (i32.add (local.get $c) (i32.const 32)))
      (br_if $columns
        (i32.gt_s (local.tee $n (i32.sub (local.get $n) (i32.const 8))) (i32.const 0))))))
