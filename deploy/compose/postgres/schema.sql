create table orders (id serial primary key, at timestamptz not null default now());
