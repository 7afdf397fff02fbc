//! One suite for every store.
//!
//! [`store_suite!`] makes a test of each check. It is given a block that makes a factory; each call
//! of that gives two handles to one fresh and empty store, as two processes would have.

pub(crate) mod audit;
pub(crate) mod entities;
pub(crate) mod fleet;
pub(crate) mod usage;

use std::sync::Arc;

use crate::store::Store;

/// Makes a fresh store and opens it twice.
pub(crate) type Factory<'a> = &'a dyn Fn() -> [Arc<dyn Store>; 2];

macro_rules! store_suite {
    ($factory:block) => {
        $crate::store::tests::suite::store_suite! { $factory;
            usage:
                a_record_counts_once_however_often_it_comes,
                every_field_comes_back,
                cells_are_sums_by_counter_and_epoch,
                expired_cells_are_neither_loaded_nor_kept,
                a_cell_lives_as_long_as_its_longest_charge,
                numbers_too_large_stop_at_the_largest,
                boots_count_apart_and_together,
                what_a_boot_added_is_read_page_by_page,
                pages_follow_one_another_without_gap_or_repeat,
                it_agrees_with_the_reference,
                two_processes_record_at_once;
            entities:
                an_entity_is_made_replaced_and_deleted,
                what_is_not_as_expected_is_stale,
                every_write_of_a_transaction_is_done_or_none,
                texts_come_back_byte_for_byte,
                a_page_never_cuts_a_revision,
                two_writers_draw_revisions_in_order,
                only_one_of_two_writers_wins;
            fleet:
                nodes_with_equal_boots_do_not_mix,
                what_is_told_and_what_is_recorded_count_once,
                totals_repeated_and_reordered_change_nothing,
                a_heartbeat_is_of_the_newest_boot,
                a_term_is_one_nodes_and_only_grows,
                of_two_that_take_a_term_at_once_one_gets_it,
                an_outcome_of_a_term_that_has_passed_is_refused,
                only_who_holds_the_term_seals,
                a_wrong_clock_ends_no_window,
                calendar_periods_are_sealed_and_the_rest_expires,
                old_books_are_removed_under_the_term;
            audit:
                each_change_leaves_one_row,
                a_refused_write_leaves_no_row,
                rows_are_read_page_by_page,
                a_log_with_a_key_is_not_continued_without,
                two_writers_make_one_chain;
        }
    };
    ($factory:block; $($area:ident: $($check:ident),+;)+) => {
        $($(
            #[test]
            fn $check() {
                let factory = $factory;
                $crate::store::tests::suite::$area::$check(&factory);
            }
        )+)+
    };
}

pub(crate) use store_suite;
