use std::marker::PhantomData;

/// A run of columns of a matrix `[rows, n]` of f32 that is being written: several such, side by side, can be filled by several threads.
pub(crate) struct Columns<'a> {
    /// The run's first element of row 0.
    start: *mut f32,
    rows: usize,
    columns: usize,
    /// Elements from one row to the next.
    stride: usize,
    matrix: PhantomData<&'a mut [f32]>,
}

// SAFETY: a `Columns` is a mutable borrow of its own elements, which no other one overlaps: see `new` and `split_at`.
unsafe impl Send for Columns<'_> {}

impl<'a> Columns<'a> {
    /// All columns of the matrix `[rows, columns]`.
    pub(crate) fn new(matrix: &'a mut [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(Some(matrix.len()), rows.checked_mul(columns), "a matrix [{rows}, {columns}]");
        Self { start: matrix.as_mut_ptr(), rows, columns, stride: columns, matrix: PhantomData }
    }

    /// The columns before `at`, and the others.
    pub(crate) fn split_at(self, at: usize) -> (Self, Self) {
        assert!(at <= self.columns, "a column of the run");
        // `wrapping_add`: of an empty matrix, or beyond the last column, the pointer is never used.
        let rest = Self { start: self.start.wrapping_add(at), columns: self.columns - at, ..self };
        (Self { columns: at, ..self }, rest)
    }

    /// Runs of `width` columns, the last perhaps narrower.
    #[cfg(test)]
    pub(crate) fn split(self, width: usize) -> Vec<Self> {
        assert!(width > 0, "a run has a width");
        let mut parts = Vec::with_capacity(self.columns.div_ceil(width));
        let mut rest = self;
        while rest.columns > width {
            let (part, more) = rest.split_at(width);
            parts.push(part);
            rest = more;
        }
        parts.push(rest);
        parts
    }

    /// How many rows the matrix has.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// How many columns this run has.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// This run's part of row `i`.
    pub(crate) fn row(&mut self, i: usize) -> &mut [f32] {
        assert!(i < self.rows, "row {i} of {}", self.rows);
        // SAFETY: the row lies in the matrix that `new` borrowed mutably for 'a; its columns belong to this run alone, and the
        // result borrows the run.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(i * self.stride), self.columns) }
    }
}
