"""Collection: shop pages to products with breadcrumbs and category paths."""
